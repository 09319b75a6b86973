"""How a run stands when its driver ends: finalized if all shards have ended, and in what words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from cluster.events import PATIENCE_S
from cluster.scheduling.orders import EXIT_DONE, EXIT_FAILED, EXIT_QUARANTINED, Stop
from lib.files import storage
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import LEARNED_REGIONS, RunIndex, covers, read_index
from lib.ledger.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    exit_code: int
    sentence: str
    shards: int
    done: int
    quarantined: int
    threads_left: bool = False
    """Threads of this process still run abandoned shards; it must be left by `os._exit`."""


def settled(
    folder: RunFolder, names: Sequence[str], stop: Stop | None, own: Sequence[str] | None = None
) -> Outcome:
    """Finalize if all shards have ended, and say how it stands.

    `own`: those of `names` that this process had to bring to their end, all if None. Where only
    they have ended, others are at work: nothing is finalized, and that is no failure.

    Raises:
        StoreUnavailableError: the run folder cannot be read, and nothing else has ended the run.
    """
    again = "run the same command again to go on"
    try:
        with storage.patience(PATIENCE_S) if stop else nullcontext():
            snapshot = folder.snapshot(names)
    except storage.StoreUnavailableError:
        if stop is None:
            raise
        sentence = f"{stop.sentence} (what is done could not be counted; {again})"
        return Outcome(stop.exit_code, sentence, len(names), 0, 0)
    left, what = len(snapshot.pending), "shards"
    counts = snapshot.counts
    if own is not None and left:
        counts, what = replace(snapshot, inputs=frozenset(own)).counts, "shards of this part"
    total, done, lost = counts.inputs, counts.committed, counts.quarantined
    where = storage.redact(folder.root)
    tail = f"{done} of {total} {what} done, {lost} quarantined, in {where}"
    if stop is None and done + lost < total:
        stop = Stop(EXIT_FAILED, "shards that were committed have gone from the run folder")
    if stop is not None:
        hint = f"; {again}" if stop.exit_code == EXIT_FAILED else ""
        return Outcome(stop.exit_code, f"{stop.sentence} ({tail}{hint})", total, done, lost)
    if left:
        tail += f"; {left} shards of other parts are not done yet"
        return Outcome(EXIT_QUARANTINED if lost else EXIT_DONE, tail, total, done, lost)
    try:
        index = _final_index(folder, snapshot) or finalize(folder)
    except (OSError, CommitDamageError) as error:
        text = f"the run cannot be finalized: {storage.redact(str(error))} ({tail})"
        return Outcome(EXIT_FAILED, text, total, done, lost)
    tail += filtered_sentence(index)
    if index["left_out"]:
        lacking = f"direction of {', '.join(index['left_out'])}"
        tail += f"; no {'regions' if LEARNED_REGIONS in index['left_out'] else lacking}:"
        tail += "".join(f"\n  {reason}" for reason in index["left_out"].values())
        if not index["totals"]["directions"]:
            return Outcome(
                EXIT_FAILED, f"nothing could be learned ({tail})", len(names), done, lost
            )
    if lost:
        hint = "see `deltah status`, and use --retry-quarantined to try them again"
        return Outcome(EXIT_QUARANTINED, f"{tail}; {hint}", total, done, lost)
    return Outcome(EXIT_DONE, tail, total, done, lost)


def filtered_sentence(index: RunIndex) -> str:
    """How many edits break a rule of evaluate.filters, and which; "" where there are no rules to
    break.
    """
    edits, marked, dropped = (index["totals"][key] for key in ("edits", "marked", "dropped"))
    said = ""
    if marked:
        said += f"; {marked:,} of {edits:,} edits marked ({_counts(index['marked'])})"
    if dropped:
        said += f"; {dropped:,} of {edits + dropped:,} edits dropped ({_counts(index['dropped'])})"
    return said


def _counts(by_rule: Mapping[str, int]) -> str:
    ordered = sorted(by_rule.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} not {rule}" for rule, count in ordered)


def _final_index(folder: RunFolder, snapshot: Snapshot) -> RunIndex | None:
    """The index, if it speaks of just these shards."""
    try:
        index = read_index(folder)
    except ValueError:  # of another release
        return None
    if index is None or not covers(index, snapshot):
        return None
    return index
