"""What a run has done so far, as its commits tell it: the counts of `status`, which are those of
`verify` at the same moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from lib.ledger import quarantine
from lib.ledger.commit_totals import CommitTotals
from lib.ledger.run_folder import RunFolder
from lib.ledger.snapshot import Counts, Snapshot


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals of a run."""

    shards: Counts
    samples_ok: int
    samples_err: int
    edits: int
    marked: Mapping[str, int]
    """Rule of evaluate.filters -> edits that break it first and are there all the same."""
    dropped: Mapping[str, int]
    """Rule -> edits that are not there because they break it first."""
    directions: int
    """Found in single images."""
    image_bytes: int
    error_kinds: Mapping[str, int]
    """Kind -> rows under errors/, the most frequent first."""
    quarantined: Mapping[str, str]
    """Shard -> reason, of the first `quarantine.MOST_REASONS`."""
    damaged: tuple[str, ...]
    """Commits that could not be read, a sentence each."""


def summary(
    folder: RunFolder, snapshot: Snapshot | None = None, totals: CommitTotals | None = None
) -> Summary:
    """Totals over every commit of the folder: one small read for each that `totals` has not read.

    Everything is counted over one snapshot, taken now if None.
    """
    snapshot = snapshot or folder.snapshot()
    totals = totals or CommitTotals(folder)
    totals.catch_up(snapshot.committed)
    return counted(folder, snapshot, totals)


def counted(folder: RunFolder, snapshot: Snapshot, totals: CommitTotals) -> Summary:
    """A summary of what `totals` holds already."""
    return Summary(
        shards=snapshot.counts,
        samples_ok=totals.sums["n_ok"],
        samples_err=totals.sums["n_err"],
        edits=totals.sums["n_edits"],
        marked=by_count(totals.marked),
        dropped=by_count(totals.dropped),
        directions=totals.sums["n_directions"],
        image_bytes=totals.sums["image_bytes"],
        error_kinds=by_count(totals.error_kinds),
        quarantined=quarantine.reasons(folder, snapshot.quarantined),
        damaged=tuple(totals.damaged.values()),
    )


def by_count(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(Counter(counts).items(), key=lambda item: (-item[1], item[0])))
