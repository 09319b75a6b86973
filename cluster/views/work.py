"""What a run took, in words: the summary at the end of `deltah run`, and a part of `status`."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console

from cluster.events import PATIENCE_S
from cluster.progress import duration
from cluster.views.tables import row_table
from lib.files import storage
from lib.ledger import quarantine
from lib.ledger.driver_record import DriverRecord
from lib.ledger.run_folder import RunFolder
from lib.ledger.summary import by_count
from lib.ledger.work import Work

Rows = list[tuple[str, str]]
_MOST_REASONS = 10


def show_end(console: Console, folder: RunFolder, record: DriverRecord) -> None:
    """Say what this driver did: a table on a terminal, plain lines in a log; nothing where it began
    no shard.
    """
    work = record.work
    if not work.attempts:
        return
    rows = [
        ("images", f"{work.images:,} in {work.shards:,} shards, {work.errors:,} with errors"),
        ("edited images", f"{work.edits:,}"),
        *((f"errors: {kind}", f"{n:,}") for kind, n in by_count(work.error_kinds).items()),
        *work_rows(work),
        *_quarantined(folder),
        ("output", storage.redact(folder.root)),
    ]
    if console.is_terminal:
        console.print(row_table(rows))
        return
    for label, value in rows:
        console.print(f"{label}: {value}", markup=False, highlight=False, soft_wrap=True)


def work_rows(work: Work) -> Rows:
    """Time, use and cost of the workers, and what was done for nothing."""
    unit = "gpu" if work.gpu_held_s else "model"
    rows: Rows = []
    if work.images_per_s is not None:
        rate = work.images_per_s
        digits = 1 if rate >= 10 else 2
        rows.append(("time", f"{duration(work.wall_s)}, {rate:.{digits}f} images/s"))
    if work.shards and work.utilisation is not None and work.waited is not None:
        rows.append(
            (f"{unit} utilisation", f"{work.utilisation:.1%} of the time workers were ready")
        )
        rows.append((f"{unit} wait", f"{work.waited:.1%} of its time, for images or encoders"))
    if work.images:
        ms = work.model_s / work.images * 1000
        each = f"{ms:,.0f} ms" if ms < 10_000 else duration(ms / 1000)
        rows.append((f"{unit} time an image", each))
    cost = f"{_hours(work.worker_hours)} worker-hours"
    rows.append(
        ("cost", f"{_hours(work.gpu_hours)} GPU-hours, {cost}" if work.gpu_held_s else cost)
    )
    if work.again:
        rows.append(("shards begun again", f"{work.again:,} of {work.attempts:,} begun"))
    if work.doubled or work.cancelled:
        rows.append(
            ("stragglers doubled", f"{work.doubled:,}, {work.cancelled:,} attempts stopped")
        )
    if work.beaten:
        rows.append(("done twice", f"{work.beaten:,} shards that another worker had committed"))
    if work.failures:
        rows.append(("attempts that failed", counted(work.failures)))
    if work.deaths:
        lost = f", with {work.lost:,} shards begun" if work.lost else ""
        rows.append(("workers that ended", counted(work.deaths) + lost))
    if work.smaller_batches:
        rows.append(("memory ran out", f"in {work.smaller_batches:,} shards: smaller batches"))
    return rows


def counted(counts: Mapping[str, int]) -> str:
    """Such as `died 3, stalled 1`."""
    return ", ".join(f"{what.replace('_', ' ')} {n:,}" for what, n in by_count(counts).items())


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"


def _quarantined(folder: RunFolder) -> Rows:
    try:
        with storage.patience(PATIENCE_S):
            given_up = folder.snapshot(()).quarantined
            reasons = quarantine.reasons(folder, given_up, _MOST_REASONS)
    except storage.StoreUnavailableError:  # of which the run's own sentence speaks
        return []
    rows = [(f"quarantined: {shard}", reason) for shard, reason in reasons.items()]
    more = len(given_up) - len(rows)
    return [*rows, ("quarantined", f"{more:,} more, in quarantine/")] if more > 0 else rows
