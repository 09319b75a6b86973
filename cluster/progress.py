"""The one line that shows how far a run is: redrawn on a terminal, plain every 30 s in a log.

All numbers come from receipts, so the line is right whatever the engine; the time left is
reckoned in images, because shards differ.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.scheduling.orders import Counts
from lib.receipts import ShardReport

_LOG_INTERVAL_S = 30.0
_TICK_S = 0.5
_WINDOW_S = 900.0
"""The rate is that of the last quarter of an hour: workers come and go."""


@dataclass(slots=True)
class Tally:
    """Receipts of this driver run, added up."""

    unit: str
    """gpu or model: what the percentage is about."""
    work: str = "edit"
    """What is done with the shards, in a word."""
    images: int = 0
    errors: int = 0
    edits: int = 0
    shards: int = 0
    busy_s: float = 0.0
    worker_s: float = 0.0
    """For which workers stood ready, up to now."""
    started_at: float | None = None
    """When the first worker was ready."""
    last_at: float = 0.0
    """Of the last receipt. Rates are up to then: what is in flight since is not known."""
    _worker_s_then: float = 0.0
    _seen_at: float = 0.0
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, report: ShardReport, now: float) -> None:
        """One receipt."""
        self.shards += 1
        self.images += report.n_in
        self.errors += report.n_err
        self.edits += report.n_edits
        self.busy_s += max(0.0, report.model_s - report.wait_s)
        self.last_at, self._worker_s_then = now, self.worker_s
        self._recent.append((now, report.n_in))
        while self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()

    def pass_time(self, ready_workers: int, now: float) -> None:
        """Count the seconds for which workers stood ready."""
        if self.started_at is None:
            if not ready_workers:
                return
            self.started_at = self._seen_at = now
        self.worker_s += ready_workers * (now - self._seen_at)
        self._seen_at = now

    def rate(self) -> float:
        """Images a second, lately."""
        if self.started_at is None or not self._recent:
            return 0.0
        span_s = min(_WINDOW_S, self.last_at - self.started_at)
        return sum(count for _, count in self._recent) / span_s if span_s > 0 else 0.0

    def busy(self) -> float:
        """The part of the workers' time in which their model computed."""
        return min(1.0, self.busy_s / self._worker_s_then) if self._worker_s_then else 0.0

    def left_s(self, shards: int, now: float) -> float | None:
        """Seconds until `shards` more are done; None where nothing tells."""
        rate = self.rate()
        if not shards:
            return 0.0
        if not rate:
            return None
        seconds = shards * self.images / self.shards / rate - (now - self.last_at)
        return seconds if seconds > 0 else None


def line(counts: Counts, tally: Tally, done_before: int, lost_before: int, now: float) -> str:
    """The progress line; the shards settled by earlier runs count as done."""
    lost = counts.quarantined + lost_before
    done = counts.done + done_before
    total = counts.total + done_before + lost_before
    left_s = tally.left_s(counts.waiting + counts.in_flight, now)
    eta = "?" if left_s is None else duration(left_s)
    return (
        f"{tally.work} {done + lost}/{total} shards | {done} ok {lost} quarantined"
        f" | {tally.images:,} img ({tally.errors:,} err) | {tally.rate():.1f} img/s"
        f" | {tally.unit} {tally.busy():.0%} | ETA {eta}"
    )


def duration(seconds: float) -> str:
    """Such as 2h10m, 3m05s or 12s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 60}m{whole % 60:02d}s" if whole >= 60 else f"{whole}s"


class ProgressLine:
    """Draws the line; use as a context."""

    def __init__(self, console: Console, text: Callable[[float], str], now: float) -> None:
        self._console = console
        self._text = text
        self._logged_at = now
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tick(self, now: float) -> None:
        """Redraw, or log a line if it is time; called at least once a second."""
        if self._live is not None:
            if now - self._logged_at >= 0.5:
                self._logged_at = now
                self._draw(now)
        elif now - self._logged_at >= _LOG_INTERVAL_S:
            self._logged_at = now
            self.say(self._text(now))

    def finish(self, now: float) -> None:
        """The last line, which stays."""
        if self._live is not None:
            self._draw(now)
        else:
            self.say(self._text(now))

    def say(self, text: str) -> None:
        """A line of its own, above the redrawn one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _draw(self, now: float) -> None:
        if self._live is not None:
            text = Text(self._text(now), no_wrap=True, overflow="ellipsis")
            self._live.update(text, refresh=True)


@contextmanager
def redrawn(text: Callable[[float], str], console: Console | None = None) -> Iterator[None]:
    """A line on standard error that is drawn by a thread of its own while the body works."""
    over = Event()
    with ProgressLine(console or Console(stderr=True), text, time.monotonic()) as shown:

        def draw() -> None:
            while not over.wait(_TICK_S):
                shown.tick(time.monotonic())

        drawing = Thread(target=draw, name="progress", daemon=True)
        drawing.start()
        try:
            yield
        finally:
            over.set()
            drawing.join()
        shown.finish(time.monotonic())
