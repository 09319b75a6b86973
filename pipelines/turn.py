"""Who holds the model: one shard at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class ModelTurn:
    """Lets shards take the model one after the other, and knows for how long nobody had it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_since = time.perf_counter()

    @contextmanager
    def taken(self) -> Iterator[float]:
        """The model is the caller's; gives the seconds for which it stood free before: since this
        was made, or since the shard before let go of it.
        """
        with self._lock:
            idle_s = time.perf_counter() - self._free_since
            try:
                yield idle_s
            finally:
                self._free_since = time.perf_counter()
