"""A probe on the terminal: its progress line, and a clean end when it is stopped."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from cluster.progress import duration, redrawn
from pipelines.config import RunConfig
from pipelines.inputs import ShardInput
from pipelines.probe import Probe, ProbeProgress, probe


def shown_probe(
    config: RunConfig, claim: Mapping[str, Any], inputs: Sequence[ShardInput], images: int
) -> Probe:
    """`pipelines.probe.probe`, with its progress on standard error.

    Raises:
        KeyboardInterrupt: it was stopped, by SIGTERM too; nothing is left of it.
    """
    progress, begun = ProbeProgress(), time.monotonic()
    with _stoppable(), redrawn(lambda now: probe_line(progress, now - begun)):
        found = probe(config, claim, inputs, images, progress)
        progress.stage = f"{found.images} images of {found.shard} measured"
    return found


def probe_line(progress: ProbeProgress, seconds: float) -> str:
    """The progress line."""
    share = ""
    if progress.expected:
        share = f" | {min(1.0, progress.steps() / progress.expected):.0%}"
    return f"probe | {progress.stage}{share} | {duration(seconds)}"


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM as a Ctrl-C, so that the throw-away folder is removed; heard in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
