"""What `deltah status` prints, once or until the run is over. No torch, no ray."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cluster.events import last_events
from cluster.progress import duration
from cluster.views.existing_run import existing_run
from cluster.views.tables import row_table
from cluster.views.work import Rows, work_rows
from cluster.watching.run_status import QUICK_COMMITS, RunStatus, StatusReader
from lib.files import storage
from lib.ledger.driver_record import DriverRecord

_MOST_REASONS = 20
_MOST_DRIVERS = 10


def show_status(root: str, *, deep: bool = False, events: int = 0, as_json: bool = False) -> None:
    """Print how far the run in folder `root` is."""
    folder = existing_run(root)
    status = StatusReader(folder, deep=deep).read()
    if as_json:
        sys.stdout.write(json_of(root, status) + "\n")
        return
    console = Console()
    console.print(rendered(status))
    for sentence in (*status.notices, *status.summary.damaged):
        _say(sentence)
    if events:
        for event in last_events(folder, events, _say):
            sys.stdout.write(json.dumps(event) + "\n")


def watch_status(root: str, *, deep: bool, interval_s: float, as_json: bool) -> None:
    """Print it again and again until the run is over: a table redrawn on a terminal; a line each
    time elsewhere, or with `as_json`.
    """
    reader = StatusReader(existing_run(root), deep=deep)
    console = Console()
    if console.is_terminal and not as_json:
        with Live(console=console, auto_refresh=False) as live:
            for status in _repeated(reader, interval_s):
                live.update(rendered(status), refresh=True)
        return
    for status in _repeated(reader, interval_s):
        sys.stdout.write((json_of(root, status) if as_json else status_line(status)) + "\n")
        sys.stdout.flush()


def _repeated(reader: StatusReader, interval_s: float) -> Iterator[RunStatus]:
    while True:
        status = reader.read()
        yield status
        if status.over:
            return
        time.sleep(interval_s)


def rendered(status: RunStatus) -> RenderableType:
    """Tables: the run, its drivers, what was given up; and who works on it."""
    parts: list[RenderableType] = [row_table(_rows(status))]
    if status.drivers:
        parts.append(_driver_table(status))
    reasons = list(status.summary.quarantined.items())
    if reasons:
        table = Table("quarantined shard", "reason")
        for shard, reason in reasons[:_MOST_REASONS]:
            table.add_row(escape(shard), escape(reason))
        parts.append(table)
        more = status.summary.shards.quarantined - len(reasons[:_MOST_REASONS])
        if more > 0:
            parts.append(Text(f"and {more:,} more, in quarantine/"))
    trouble = [line for driver in status.drivers for line in driver.trouble][-_MOST_REASONS:]
    parts += [Text(line, style="dim") for line in trouble if not status.over]
    parts.append(Text(status.sentence()))
    return Group(*parts)


def status_line(status: RunStatus) -> str:
    """One line, for logs."""
    found = status.summary
    counts = found.shards
    left = "?" if status.left_s is None else duration(status.left_s)
    return (
        f"{counts.committed + counts.quarantined}/{counts.inputs} shards | {counts.committed} ok"
        f" {counts.quarantined} quarantined | {found.samples_ok + found.samples_err:,} img"
        f" ({found.samples_err:,} err) | {status.images_per_s:.1f} img/s | ETA {left}"
        f" | {status.sentence()}"
    )


def json_of(root: str, status: RunStatus) -> str:
    """The same for programs: one object on one line."""
    found = asdict(status.summary)
    shards = found.pop("shards") | {"pending": status.summary.shards.pending}
    work = status.work
    drivers = [
        asdict(driver)
        | {"alive": driver.alive(status.at), "silent_s": round(driver.silent_s(status.at), 1)}
        for driver in status.drivers
    ]
    return json.dumps(
        {
            "folder": storage.redact(root),
            "at": status.at,
            "shards": shards,
            **found,
            "counts_from": status.source,
            "finalized": status.finalized,
            "over": status.over,
            "sentence": status.sentence(),
            "images_per_s": status.images_per_s,
            "left_s": status.left_s,
            "gpu_wait": work.waited,
            "gpu_utilisation": work.utilisation,
            "gpu_hours": work.gpu_hours,
            "worker_hours": work.worker_hours,
            "work": asdict(work),
            "learned_directions": status.learned_directions,
            "learned": status.learned,
            "drivers": drivers,
            "notices": status.notices,
        },
        default=_plain,
    )


def _say(sentence: str) -> None:
    Console(stderr=True, soft_wrap=True).print(sentence, markup=False, highlight=False)


def _rows(status: RunStatus) -> Rows:
    found, counts = status.summary, status.summary.shards
    told = {
        "commits": "",
        "index.json": "",
        "receipts": f" (by receipts; over {QUICK_COMMITS:,} commits are counted with --deep only)",
    }[status.source]
    rows: Rows = [
        ("shards", f"{counts.committed:,} of {counts.inputs:,} done"),
        ("quarantined", f"{counts.quarantined:,}"),
        ("to do", f"{counts.pending:,}"),
        ("samples", f"{found.samples_ok:,} ok, {found.samples_err:,} errors{told}"),
        ("edited images", f"{found.edits:,}"),
        *((f"marked, not {rule}", f"{count:,}") for rule, count in found.marked.items()),
        *((f"dropped, not {rule}", f"{count:,}") for rule, count in found.dropped.items()),
        ("directions of single images", f"{found.directions:,}"),
        *(("learned from all images", sentence) for sentence in status.learned),
        ("image bytes", f"{found.image_bytes:,}"),
        *((f"errors: {kind}", f"{count:,}") for kind, count in found.error_kinds.items()),
    ]
    if status.living:
        left = "?" if status.left_s is None else duration(status.left_s)
        rows.append(("rate", f"{status.images_per_s:.1f} images/s, ETA {left}"))
    if status.work.attempts:
        rows += work_rows(status.work)
    return rows


def _driver_table(status: RunStatus) -> Table:
    table = Table("driver", "state", "workers", "images/s", "shards", "last sign of life")
    left_out = len(status.drivers) - _MOST_DRIVERS
    for driver in status.drivers[-_MOST_DRIVERS:]:
        alive = driver.alive(status.at)
        table.add_row(
            f"{escape(driver.host)} {driver.pid}",
            escape(_state(driver, alive=alive)),
            f"{driver.ready_workers} of {driver.workers}" if alive else "-",
            f"{driver.images_per_s:.1f}" if alive else "-",
            f"{driver.work.shards:,}",
            f"{duration(driver.silent_s(status.at))} ago",
        )
    if left_out > 0:
        table.caption = f"and {left_out:,} earlier ones"
    return table


def _state(driver: DriverRecord, *, alive: bool) -> str:
    if driver.state == "ended":
        return f"ended, exit {driver.exit_code}"
    return driver.state if alive else f"silent ({driver.state} before): probably crashed"


def _plain(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds")
    raise TypeError(f"{type(value).__name__} cannot be in a status")
