"""What a run has done so far, added up from the footers of its commits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lib.ledger.commit_record import CommitDamageError, CommitRecord, read_commit
from lib.ledger.run_folder import Counts, RunFolder

_READERS = 8


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
    input_bytes: int
    """Of the committed shards."""
    image_bytes: int
    direction_bytes: int
    error_kinds: Mapping[str, int]
    """Kind -> rows under errors/, the most frequent first."""
    quarantined: Mapping[str, str]
    """Shard -> reason."""
    damaged: tuple[str, ...]
    """Commits that could not be read, a sentence each."""


def read_commits(
    folder: RunFolder, shards: Iterable[str]
) -> Iterator[tuple[str, CommitRecord | CommitDamageError]]:
    """The commit footer of each shard, or what is wrong with it, in the given order; rows are not
    read.
    """

    def read(shard: str) -> tuple[str, CommitRecord | CommitDamageError]:
        try:
            return shard, read_commit(folder.commit_url(shard))
        except CommitDamageError as error:
            return shard, error

    with ThreadPoolExecutor(_READERS) as pool:
        yield from pool.map(read, shards)


def summary(folder: RunFolder) -> Summary:
    """Totals over every commit of the folder: one small read per shard.

    `folder.counts()` alone answers how many shards are done, by listings.
    """
    totals: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    damaged = []
    for _, record in read_commits(folder, sorted(folder.committed())):
        if isinstance(record, CommitDamageError):
            damaged.append(str(record))
            continue
        totals["ok"] += record.n_ok
        totals["err"] += record.n_err
        totals["edits"] += record.n_edits
        totals["directions"] += record.n_directions
        totals["input_bytes"] += record.input_size
        totals["image_bytes"] += record.image_bytes
        totals["direction_bytes"] += record.directions_bytes
        kinds.update(record.error_kinds)
        marked.update(record.marked)
        dropped.update(record.dropped)
    return Summary(
        shards=folder.counts(),
        samples_ok=totals["ok"],
        samples_err=totals["err"],
        edits=totals["edits"],
        marked=_by_count(marked),
        dropped=_by_count(dropped),
        directions=totals["directions"],
        input_bytes=totals["input_bytes"],
        image_bytes=totals["image_bytes"],
        direction_bytes=totals["direction_bytes"],
        error_kinds=_by_count(kinds),
        quarantined=folder.quarantined(),
        damaged=tuple(damaged),
    )


def _by_count(counts: Counter[str]) -> dict[str, int]:
    """The most frequent first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
