"""Where every shard of a driver run is and which is sent next: each ends done or quarantined."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cluster.scheduling.orders import Counts

State = Literal["waiting", "sent", "done", "quarantined"]


@dataclass(slots=True)
class Shard:
    """One input shard and what it has been through."""

    name: str
    url: str
    state: State = "waiting"
    copies: int = 0
    """Workers that have it in hand."""
    starts: int = 0
    """How often a worker began it."""
    charges: int = 0
    """The starts that count against it: not those whose machine was lost."""
    alone: bool = False
    """It was there when a worker died, so it is sent only to a worker that holds nothing else."""
    vanished: bool = False
    avoid: int | None = None
    """The worker that failed it last; another one is preferred."""


class ShardQueue:
    """Shards in the order they came, those to be retried first as soon as their pause is over."""

    def __init__(self, shards: Mapping[str, str]) -> None:
        self._shards = {name: Shard(name, url) for name, url in shards.items()}
        self._fresh = deque(self._shards)
        self._retries: list[tuple[float, int, str]] = []
        self._retry_count = 0
        self._tally: dict[State, int] = {
            "waiting": len(self._shards),
            "sent": 0,
            "done": 0,
            "quarantined": 0,
        }

    def __getitem__(self, name: str) -> Shard:
        return self._shards[name]

    @property
    def counts(self) -> Counts:
        """Where the shards are."""
        tally = self._tally
        total = len(self._shards)
        return Counts(total, tally["done"], tally["quarantined"], tally["sent"], tally["waiting"])

    def move(self, shard: Shard, state: State) -> None:
        """Change a shard's state."""
        self._tally[shard.state] -= 1
        self._tally[state] += 1
        shard.state = state

    def send(self, shard: Shard) -> None:
        """A worker more has it in hand."""
        shard.copies += 1
        self.move(shard, "sent")

    def retry(self, shard: Shard, due: float) -> None:
        """Let a shard wait until `due` (monotonic seconds)."""
        self._retry_count += 1
        heapq.heappush(self._retries, (due, self._retry_count, shard.name))
        self.move(shard, "waiting")

    def due(self, now: float) -> list[Shard]:
        """Take the shards whose pause is over; what is not sent must be given back by `retry`."""
        due = []
        while self._retries and self._retries[0][0] <= now:
            shard = self._shards[heapq.heappop(self._retries)[2]]
            if shard.state == "waiting":
                due.append(shard)
        return due

    def fresh(self) -> Shard | None:
        """Take the next shard that was never sent."""
        while self._fresh:
            shard = self._shards[self._fresh.popleft()]
            if shard.state == "waiting":
                return shard
        return None

    def found_committed(self, names: Iterable[str]) -> None:
        """Another writer has done these; those in flight end by themselves."""
        for name in names:
            shard = self._shards.get(name)
            if shard is not None and shard.state in ("waiting", "quarantined"):
                self.move(shard, "done")
