"""The workers of a run: how far each is, what it holds, who has room; which places are given up.

Every question that is asked after every event is answered from what is kept, not by a walk over all
workers, so that a thousand of them cost no more than ten.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from lib.receipts import ShardTask

State = Literal["starting", "placed", "ready"]


@dataclass(slots=True)
class Slot:
    """A place for one worker after the other."""

    failures: int = 0
    """In a row, of workers that were never placed, or died before they did anything."""
    retired: bool = False


@dataclass(slots=True)
class Worker:
    """One incarnation of a worker; its number is never used again."""

    number: int
    slot: Slot
    progress_at: float
    """Its last sign of life; like all times here, monotonic seconds."""
    state: State = "starting"
    node: str = ""
    """Where it was placed; "" before that."""
    images: int = 0
    killed: bool = False
    exclusive: bool = False
    """It holds a shard that must be alone."""
    sent: dict[str, ShardTask] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    """When it began each shard it holds; the model takes them in this order."""
    freed_at: float = 0.0
    """When its model last let go of a shard."""
    level: int | None = None
    """Among those with room: how many shards it holds. Kept by the fleet."""
    load: int = 0
    """Shards it was last filed under. Kept by the fleet."""

    @property
    def has_room(self) -> bool:
        """Whether it may be given a shard, if it does not hold too many."""
        return self.state == "ready" and not self.killed and not self.exclusive


class Fleet:
    """Workers by number, in at most `size` slots; a worker may hold `in_flight` shards."""

    def __init__(self, size: int, in_flight: int) -> None:
        self.slots = [Slot() for _ in range(size)]
        self._in_flight = in_flight
        self._empty = dict.fromkeys(range(size))
        self._place = {id(slot): number for number, slot in enumerate(self.slots)}
        self._workers: dict[int, Worker] = {}
        self._starting: dict[int, float] = {}
        """Not placed yet -> since when, the oldest first."""
        self._levels: list[dict[int, Worker]] = [{} for _ in range(in_flight)]
        self._loads = [0] * (in_flight + 1)
        """How many workers, in any state, hold so many shards."""
        self._next = 0
        self.ready = 0
        """Workers that hold a model."""

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    def get(self, number: int) -> Worker | None:
        """The worker, None if it is gone."""
        return self._workers.get(number)

    def start(self, most: int, now: float) -> list[Worker]:
        """New workers in empty slots, so many at most."""
        new: list[Worker] = []
        while self._empty and len(new) < most:
            slot = self.slots[next(iter(self._empty))]
            del self._empty[self._place[id(slot)]]
            worker = Worker(self._next, slot, now)
            self._next += 1
            self._workers[worker.number] = worker
            self._starting[worker.number] = now
            self._loads[0] += 1
            new.append(worker)
        return new

    def advance(self, worker: Worker, state: State, now: float) -> None:
        """A worker was placed, or is ready."""
        self._starting.pop(worker.number, None)
        self.ready += state == "ready"
        worker.state, worker.progress_at, worker.freed_at = state, now, now
        self._file(worker)

    def remove(self, worker: Worker) -> None:
        """A worker is gone; its slot is empty unless it is retired."""
        del self._workers[worker.number]
        self._starting.pop(worker.number, None)
        self.ready -= worker.state == "ready"
        self._loads[worker.load] -= 1
        self._unfile(worker)
        if not worker.slot.retired:
            self._empty[self._place[id(worker.slot)]] = None

    def retire(self, slot: Slot) -> bool:
        """Leave a slot empty for good; whether it was the last."""
        slot.retired = True
        self._empty.pop(self._place[id(slot)], None)
        return all(each.retired for each in self.slots)

    def give(self, worker: Worker, task: ShardTask, now: float, *, alone: bool = False) -> None:
        """A worker holds one shard more."""
        if not worker.sent:
            worker.progress_at = now
        worker.sent[task.shard] = task
        worker.exclusive = alone
        self._file(worker)

    def begin(self, worker: Worker, shard: str, now: float) -> None:
        """A worker has begun a shard that it holds."""
        worker.started[shard] = worker.progress_at = now

    def take(self, worker: Worker, shard: str, now: float) -> float | None:
        """A worker is done with a shard. Returns the seconds for which its model had it, as far as
        can be seen from here; None if it never began.
        """
        worker.sent.pop(shard, None)
        began = worker.started.pop(shard, None)
        spent_s = None if began is None else now - max(began, worker.freed_at)
        worker.exclusive = False
        worker.progress_at = worker.freed_at = now
        self._file(worker)
        return spent_s

    def kill(self, worker: Worker) -> None:
        """A worker is to be ended: it is given nothing more."""
        worker.killed = True
        self._file(worker)

    def with_room(self, held: int) -> list[Worker]:
        """Those that hold just so many shards and may be given another."""
        return list(self._levels[held].values())

    def rivals(self, held: int, since: float) -> int:
        """How many hold at most so many shards, among them those that were asked to start after
        `since`: who has waited longer for a machine may wait for ever.
        """
        late = 0
        for began in self._starting.values():
            if began > since:
                break
            late += 1
        return sum(self._loads[: held + 1]) - late

    def _file(self, worker: Worker) -> None:
        """Put a worker where its load belongs."""
        held = len(worker.sent)
        if held != worker.load:
            self._loads[worker.load] -= 1
            self._loads[held] += 1
            worker.load = held
        self._unfile(worker)
        if worker.has_room and held < self._in_flight:
            worker.level = held
            self._levels[held][worker.number] = worker

    def _unfile(self, worker: Worker) -> None:
        if worker.level is not None:
            del self._levels[worker.level][worker.number]
            worker.level = None
