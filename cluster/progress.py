"""The one line that shows how far a run is: redrawn on a terminal, plain every 30 s in a log.

All numbers come from receipts, so the line is right whatever the engine; the time left is
reckoned in images, because shards differ.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cluster.scheduling.orders import Counts
from cluster.watching.tally import Tally

_LOG_INTERVAL_S = 30.0
_TICK_S = 0.5


def line(
    verb: str,
    unit: str,
    counts: Counts,
    tally: Tally,
    done_before: int,
    lost_before: int,
    now: float,
) -> str:
    """The progress line; the shards settled by earlier runs count as done. `unit`, gpu or model, is
    what the percentage is about: the time in which it computed instead of waiting for images.
    """
    lost = counts.quarantined + lost_before
    done = counts.done + done_before
    total = counts.total + done_before + lost_before
    left_s = tally.left_s(counts.waiting + counts.in_flight, now)
    eta = "?" if left_s is None else duration(left_s)
    waited = tally.work.waited
    busy = "?" if waited is None else f"{1 - waited:.0%}"
    return (
        f"{verb} {done + lost}/{total} shards | {done} ok {lost} quarantined"
        f" | {tally.work.images:,} img ({tally.work.errors:,} err) | {tally.rate():.1f} img/s"
        f" | {unit} {busy} | ETA {eta}"
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
