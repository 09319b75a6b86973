"""Shards in hand that can be stopped from another thread: between images, or before their turn."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from lib.receipts import ShardCancelled

T = TypeVar("T")


class Stoppable:
    """A shard in hand."""

    def __init__(self, shard: str) -> None:
        self._shard = shard
        self.asked = threading.Event()

    def check(self) -> None:
        """Raises ShardCancelled once it was asked for."""
        if self.asked.is_set():
            raise ShardCancelled(f"shard {self._shard} was stopped on the driver's order")

    def through(self, items: Iterable[T]) -> Iterator[T]:
        """The same items, checked before each."""
        for item in items:
            self.check()
            yield item


class ShardsInHand:
    """Those that a worker works on now."""

    def __init__(self) -> None:
        self._shards: dict[str, Stoppable] = {}

    @contextmanager
    def taken(self, shard: str) -> Iterator[Stoppable]:
        """The shard is in hand within this context."""
        stoppable = self._shards[shard] = Stoppable(shard)
        try:
            yield stoppable
        finally:
            self._shards.pop(shard, None)

    def stop(self, shard: str) -> None:
        """Ask for the end of a shard; one that is not in hand is fine."""
        found = self._shards.get(shard)
        if found is not None:
            found.asked.set()
