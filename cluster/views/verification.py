"""What `deltah verify` and `deltah finalize` print. No torch, no ray."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cluster.views.existing_run import existing_run
from cluster.views.tables import print_rows
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_index import not_learned
from lib.ledger.verification import Verification, verify

_MOST_UNFINISHED = 5


def show_verification(root: str, *, deep: bool) -> int:
    """Print what does not add up; the exit code."""
    found = verify(existing_run(root), deep=deep)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for sentence in _shortened(found.unfinished):
        console.print(f"unfinished: {sentence}")
    for sentence in found.faults:
        console.print(f"problem: {sentence}")
    for sentence in found.notes:
        console.print(f"note: {sentence}")
    console.print(
        f"{found.inputs} shards: {found.committed} committed, {found.quarantined} quarantined;"
        f" {found.samples_ok} samples ok, {found.samples_err} in errors; {found.edits} edits;"
        f" {found.directions} directions; {_verdict(found)}"
    )
    return 0 if found.ok else 1


def _verdict(found: Verification) -> str:
    if found.ok:
        return "all accounted for"
    words = [f"{found.pending} shards to do"] if found.pending else []
    if found.faults or not words:
        words.append(f"{len(found.faults) or len(found.unfinished)} problems")
    else:
        words.append("no problem so far")
    return ", ".join(words)


def _shortened(sentences: Sequence[str]) -> list[str]:
    """A run that has only begun has a sentence for every shard."""
    if len(sentences) <= _MOST_UNFINISHED:
        return list(sentences)
    return [*sentences[:_MOST_UNFINISHED], f"and {len(sentences) - _MOST_UNFINISHED} more"]


def show_finalized(root: str) -> None:
    """Finalize and print the totals."""
    try:
        index = finalize(existing_run(root))
    except CommitDamageError as error:
        raise OSError(str(error)) from error
    totals = sorted(index["totals"].items())
    print_rows((name.replace("_", " "), f"{value:,}") for name, value in totals)
    for sentence in not_learned(index):
        Console(stderr=True).print(sentence, markup=False, highlight=False)
