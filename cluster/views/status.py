"""What `deltah status` prints. No torch, no ray."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.events import read_events
from cluster.progress import duration
from cluster.views.existing_run import existing_run
from cluster.views.tables import print_rows
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import LEARNED_REGIONS, not_learned, read_index
from lib.ledger.summary import summary

_MOST_REASONS = 20


def show_status(root: str) -> None:
    """Print how far the run in folder `root` is."""
    folder = existing_run(root)
    found = summary(folder)
    counts = found.shards
    rows = [
        ("shards", f"{counts.committed:,} of {counts.inputs:,} done"),
        ("quarantined", f"{counts.quarantined:,}"),
        ("to do", f"{counts.pending:,}"),
        ("samples", f"{found.samples_ok:,} ok, {found.samples_err:,} errors"),
        ("edited images", f"{found.edits:,}"),
        *((f"marked, not {rule}", f"{count:,}") for rule, count in found.marked.items()),
        *((f"dropped, not {rule}", f"{count:,}") for rule, count in found.dropped.items()),
        ("directions of single images", f"{found.directions:,}"),
        *_learned(folder),
        ("image bytes", f"{found.image_bytes:,}"),
        *((f"errors: {kind}", f"{count:,}") for kind, count in found.error_kinds.items()),
        *_last_driver(folder),
    ]
    print_rows(rows)
    reasons = list(found.quarantined.items())
    if reasons:
        table = Table("quarantined shard", "reason")
        for shard, reason in reasons[:_MOST_REASONS]:
            table.add_row(escape(shard), escape(reason))
        Console().print(table)
        if len(reasons) > _MOST_REASONS:
            Console().print(f"and {len(reasons) - _MOST_REASONS} more, in quarantine/")
    for sentence in found.damaged:
        Console(stderr=True).print(sentence, markup=False, highlight=False)


def _learned(folder: RunFolder) -> list[tuple[str, str]]:
    """What finalize learned from all images, and what it could not."""
    try:
        index = read_index(folder)
    except ValueError:  # of another release
        return []
    if index is None or not (index["merged"] or index["left_out"]):
        return []
    rows = sum(file["rows"] for file in index["merged"])
    left_out = [("not learned", sentence) for sentence in not_learned(index)]
    if any(file["name"] == "regions.safetensors" for file in index["merged"]):
        return [("regions of all images", "learned: see `deltah regions show`")]
    if LEARNED_REGIONS in index["left_out"]:
        return left_out
    return [("directions of all images", f"{rows:,}"), *left_out]


def _last_driver(folder: RunFolder) -> list[tuple[str, str]]:
    """When the last driver wrote something, and its rate."""
    done: list[dict[str, Any]] = []
    last: dict[str, Any] = {}
    for event in read_events(folder):
        last = event
        if event["event"] == "run_started":
            done = []
        elif event["event"] == "shard_done":
            done.append(event)
    rows = []
    if last:
        rows.append(("last sign of life", f"{last['time']} ({last['event']})"))
    if done:
        model_s = sum(event["report"]["model_s"] for event in done)
        images = sum(event["report"]["n_in"] for event in done)
        rows.append(("last driver", f"{len(done):,} shards, {images:,} images"))
        if images:
            rows.append(("model time an image", duration_or_ms(model_s / images)))
    return rows


def duration_or_ms(seconds: float) -> str:
    """Milliseconds below ten seconds."""
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else duration(seconds)
