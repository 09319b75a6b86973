"""Which shards in flight are worth a second worker, once nothing else is left to do.

The last shards of a run would else wait for the slowest worker. A duplicate costs only the time of
a worker that has nothing to do, and cannot harm: of two commits the first wins, whole (MapReduce's
backup tasks, Dean and Ghemawat 2004, section 3.6).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from statistics import median

from cluster.scheduling.fleet import Worker

_REMEMBERED = 500
_LEAST_KNOWN = 5


class ShardTimes:
    """For how long a model has a shard, from those that were finished lately."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)
        self._median: float | None = None

    def add(self, seconds: float) -> None:
        """One finished shard."""
        self._seconds.append(seconds)
        self._median = None

    @property
    def typical_s(self) -> float | None:
        """The median; None until a handful is known."""
        if self._median is None and len(self._seconds) >= _LEAST_KNOWN:
            self._median = median(self._seconds)
        return self._median


@dataclass(frozen=True, slots=True)
class Laggard:
    """A shard in flight, and for how long it is expected to be."""

    shard: str
    worker: int
    remaining_s: float


def laggards(workers: Iterable[Worker], typical_s: float, now: float) -> Iterator[Laggard]:
    """Every shard that a worker has begun.

    The model takes a worker's shards one after the other. One that it has had for less than the
    typical time needs the rest of that; one that it has had for longer is taken to need as long
    again, since nothing tells what holds it up.
    """
    for worker in workers:
        if worker.state != "ready" or worker.killed:
            continue
        ahead_s = 0.0
        for position, (shard, began) in enumerate(worker.started.items()):
            remaining_s = typical_s
            if not position:
                spent_s = now - max(began, worker.freed_at)
                remaining_s = typical_s - spent_s if spent_s < typical_s else spent_s
            ahead_s += remaining_s
            yield Laggard(shard, worker.number, ahead_s)
