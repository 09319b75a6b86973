"""SIGINT and SIGTERM: the first asks for an orderly end, the second ends at once.

Batch systems signal the script and all its processes, and scripts pass signals on, so what comes
again within half a second is the first one still.
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ECHO_S = 0.5


class Interrupts:
    """Within this context the first signal sets `asked`, the second raises KeyboardInterrupt.

    Python hears signals in the main thread only; in any other this does nothing.
    """

    def __init__(self) -> None:
        self.asked = ""
        """The first signal's name."""
        self._asked_at = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        in_main = threading.current_thread() is threading.main_thread()
        for number in _SIGNALS if in_main else ():
            self._before[number] = signal.signal(number, self._heard)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._asked_at > _ECHO_S:
            raise KeyboardInterrupt
        if self.asked:
            return
        self._asked_at = now
        self.asked = signal.Signals(number).name
