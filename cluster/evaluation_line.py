"""The progress line of `deltah evaluate` while pictures are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console

from cluster.progress import duration, redrawn
from pipelines.evaluation.orders import Receipt


@dataclass(slots=True)
class MeasuringTally:
    """Receipts of this call, added up."""

    shards: int
    """To be measured."""
    earlier: int
    """Measured by an earlier call."""
    begun_at: float
    done: int = 0
    images: int = 0
    edits: int = 0
    failed: int = 0

    def add(self, receipt: Receipt) -> None:
        """One shard more."""
        self.done += 1
        self.images += receipt.images
        self.edits += receipt.edits
        self.failed += receipt.failed

    def line(self, now: float) -> str:
        """The progress line; `now` is a monotonic clock in seconds."""
        seconds = now - self.begun_at
        left = duration(seconds * (self.shards - self.done) / self.done) if self.done else "?"
        earlier = f" ({self.earlier:,} by an earlier call)" if self.earlier else ""
        rate = self.images / seconds if seconds > 0 else 0.0
        return (
            f"evaluate {self.earlier + self.done}/{self.earlier + self.shards} shards{earlier}"
            f" | {self.images:,} img ({self.failed:,} err) | {self.edits:,} edits"
            f" | {rate:.1f} img/s | ETA {left}"
        )


@contextmanager
def measuring_line(
    shards: int, earlier: int, console: Console | None = None
) -> Iterator[Callable[[Receipt], None]]:
    """What takes receipts and shows them on standard error: one line that is redrawn on a terminal,
    a plain one every 30 s in a log.
    """
    tally = MeasuringTally(shards, earlier, time.monotonic())
    with redrawn(tally.line, console):
        yield tally.add
