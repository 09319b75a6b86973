"""What the model has made and threads have not finished yet: bounded, so that memory is."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Backlog:
    """Hands work to a pool, and lets whoever brings more than `limit` pieces wait until one is
    done.
    """

    def __init__(self, pool: Executor, limit: int) -> None:
        self._pool = pool
        self._room = threading.Semaphore(limit)
        self.waited_s = 0.0
        """Seconds in which `submit` waited for room. Right only while one thread at a time submits,
        as the one that holds the model does.
        """

    def submit(
        self, function: Callable[P, T], /, *arguments: P.args, **options: P.kwargs
    ) -> Future[T]:
        """As `Executor.submit`, as soon as there is room."""
        if not self._room.acquire(blocking=False):
            started = time.perf_counter()
            self._room.acquire()
            self.waited_s += time.perf_counter() - started
        try:
            future = self._pool.submit(function, *arguments, **options)
        except RuntimeError:  # the pool is shut
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future
