"""What `deltah verify` and `deltah finalize` print. No torch, no ray."""

from __future__ import annotations

from rich.console import Console

from cluster.views.existing_run import existing_run
from cluster.views.tables import print_rows
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_index import not_learned
from lib.ledger.verification import verify


def show_verification(root: str, *, deep: bool) -> int:
    """Print what does not add up; the exit code."""
    found = verify(existing_run(root), deep=deep)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for sentence in found.problems:
        console.print(f"problem: {sentence}")
    for sentence in found.notes:
        console.print(f"note: {sentence}")
    console.print(
        f"{found.inputs} shards: {found.committed} committed, {found.quarantined} quarantined;"
        f" {found.samples_ok} samples ok, {found.samples_err} in errors; {found.edits} edits;"
        f" {found.directions} directions;"
        f" {'all accounted for' if found.ok else f'{len(found.problems)} problems'}"
    )
    return 0 if found.ok else 1


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
