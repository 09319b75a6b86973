"""A thousand workers that are not there: a pool on a virtual clock, with machines that are taken
away, shards that kill, shards that hang, and attempts that are slow.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.pools.protocol import (
    Event,
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.verdicts import Raised
from lib.receipts import ShardReport, ShardTask


@dataclass(frozen=True, slots=True)
class World:
    """What the simulated cluster is like; times in seconds."""

    workers: int = 1000
    shards: int = 100_000
    images: int = 64
    """In a shard."""
    image_s: float = 5.0
    """Model time of an image."""
    spread: float = 0.1
    """Standard deviation of the logarithm of a shard's model time."""
    place_s: float = 20.0
    """Until a process is up."""
    load_s: float = 60.0
    """Until it holds the model."""
    read_s: float = 2.0
    write_s: float = 2.0
    """Beside the model, in both cases."""
    preempted: float = 0.05
    """Of the workers, an hour."""
    away_s: float = 600.0
    """Until a machine that was taken away is replaced."""
    notice_s: float = 10.0
    """Until a lost machine is known to be lost."""
    poison: float = 0.001
    """Of the shards."""
    hanging: float = 0.25
    """Of the poison; the rest kills its worker."""
    stragglers: float = 0.02
    """Of the attempts."""
    slow_workers: float = 0.0
    """Of the workers, for as long as they live."""
    slowdown: float = 5.0
    """Of a straggler, or of a slow worker."""
    seed: int = 0


@dataclass(slots=True)
class _Worker:
    number: int
    placed_at: float
    ready: bool = False
    slow: bool = False
    images: int = 0
    held: deque[ShardTask] = field(default_factory=deque)
    running: ShardTask | None = None
    began_at: float = 0.0
    ends_at: float = math.inf


@dataclass(slots=True)
class Ledger:
    """Where the seconds of the workers went."""

    held_s: float = 0.0
    """For which workers had a machine."""
    useful_s: float = 0.0
    """In which a model worked on what was then committed first."""
    lost_s: float = 0.0
    """In which it worked on what was not: preempted, killed, hung, second to finish."""
    starting_s: float = 0.0
    preemptions: int = 0
    deaths: int = 0
    attempts: int = 0
    duplicates: int = 0


class SimulatedPool:
    """See `cluster.pools.protocol.Pool`; `now` is its own clock."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0.0
        self.ledger = Ledger()
        self.committed: dict[str, int] = {}
        """Shard -> how often it was committed: more than once is a defect of the simulation."""
        self._chance = random.Random(world.seed)
        self._order = itertools.count()
        self._due: list[tuple[float, int, str, int, ShardTask | None]] = []
        self._workers: dict[int, _Worker] = {}
        self._free = world.workers
        self._asked: deque[int] = deque()
        self._poison: dict[str, str] = {}
        self._sizes: dict[str, float] = {}
        self._writing: dict[tuple[int, str], float] = {}
        """Model seconds of what is being written."""
        self._out: list[Event] = []

    def nominal_s(self, shard: str) -> float:
        """Model time of a shard that does not lag, the same in every attempt."""
        if shard not in self._sizes:
            chance = random.Random(f"{self.world.seed}/{shard}")
            mean_s = self.world.images * self.world.image_s
            self._sizes[shard] = mean_s * math.exp(chance.gauss(0.0, self.world.spread))
            if chance.random() < self.world.poison:
                hangs = chance.random() < self.world.hanging
                self._poison[shard] = "hang" if hangs else "kill"
        return self._sizes[shard]

    def is_poison(self, shard: str) -> bool:
        """Whether it can never be done."""
        self.nominal_s(shard)
        return shard in self._poison

    # -- what a schedule orders ------------------------------------------------------------------

    def start(self, worker: int) -> None:
        """Placed as soon as there is a machine."""
        self._asked.append(worker)
        self._place()

    def submit(self, worker: int, task: ShardTask) -> None:
        """It begins when its model is free."""
        found = self._workers.get(worker)
        if found is None:
            return
        self.ledger.attempts += 1
        self.ledger.duplicates += task.duplicate
        self._out.append(ShardStarted(worker, task))
        found.held.append(task)
        if found.running is None:
            self._at(self.now + self.world.read_s, "begin", worker)

    def cancel(self, worker: int, shard: str) -> None:
        """At the next image."""
        found = self._workers.get(worker)
        if found is None:
            return
        task = next((t for t in (*found.held, found.running) if t and t.shard == shard), None)
        if task is None:
            return
        if task is found.running:
            self.ledger.lost_s += self.now - found.began_at
            found.running, found.ends_at = None, math.inf
            self._at(self.now, "begin", worker)
        else:
            found.held.remove(task)
        self._out.append(ShardRaised(worker, task, Raised("Cancelled", "", "", "cancelled")))

    def avoid(self, node: str) -> int:
        """Machines are alike."""
        return self.world.workers

    def kill(self, worker: int, reason: str) -> None:
        """Its process ends; the machine stays."""
        if worker in self._workers:
            self._end(worker, reason, node_lost=False)

    def let_go(self, worker: int) -> None:
        """Its machine is not held any longer."""
        self.ledger.held_s += self.now - self._workers.pop(worker).placed_at
        self._at(self.now, "machine", worker)

    def heartbeats(self) -> dict[int, int]:
        """A worker that hangs finishes no image."""
        beats = {}
        for number, worker in self._workers.items():
            if worker.running is not None and self._poison.get(worker.running.shard) != "hang":
                worker.images = int(self.now)
            beats[number] = worker.images
        return beats

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """Goes on to the next thing that happens, or by `timeout_s`."""
        if not self._out:
            until = self.now + timeout_s
            self.now = min(until, self._due[0][0]) if self._due else until
        while self._due and self._due[0][0] <= self.now:
            _, _, kind, number, task = heapq.heappop(self._due)
            self._happen(kind, number, task)
        out, self._out = self._out, []
        return out

    def close(self) -> bool:
        """All workers end with the run."""
        for worker in self._workers.values():
            self.ledger.held_s += self.now - worker.placed_at
            if worker.running is not None:
                self.ledger.lost_s += self.now - worker.began_at
        self._workers.clear()
        return True

    # -- what happens ----------------------------------------------------------------------------

    def _at(self, when: float, kind: str, number: int, task: ShardTask | None = None) -> None:
        heapq.heappush(self._due, (when, next(self._order), kind, number, task))

    def _place(self) -> None:
        while self._free and self._asked:
            number = self._asked.popleft()
            self._free -= 1
            slow = self._chance.random() < self.world.slow_workers
            self._workers[number] = _Worker(number, self.now, slow=slow)
            self._at(self.now + self.world.place_s, "placed", number)
            if self.world.preempted:
                hours = self._chance.expovariate(-math.log1p(-self.world.preempted))
                self._at(self.now + hours * 3600, "preempt", number)

    def _happen(self, kind: str, number: int, task: ShardTask | None) -> None:
        if kind == "machine":
            self._free += 1
            self._place()
            return
        if kind == "lost":
            self._out.append(WorkerDied(number, "its machine was lost", node_lost=True))
            return
        if kind == "written" and task is not None:  # also of a worker that has died since
            self._written(number, task)
            return
        worker = self._workers.get(number)
        if worker is None:
            return
        match kind:
            case "placed":
                self._out.append(WorkerPlaced(number, "machine", number, f"machine-{number}"))
                self._at(self.now + self.world.load_s, "ready", number)
            case "ready":
                worker.ready = True
                self.ledger.starting_s += self.now - worker.placed_at
                self._out.append(WorkerReady(number, "machine", number))
            case "preempt":
                self.ledger.preemptions += 1
                self._end(number, "", node_lost=True)
            case "begin" if worker.running is None and worker.held:
                self._begin(worker)
            case "end" if self.now >= worker.ends_at and worker.running is not None:
                self._model_done(worker, worker.running)
            case "poisoned" if worker.running is task and task is not None:
                self.ledger.deaths += 1
                self._end(number, "its process exited", node_lost=False)

    def _begin(self, worker: _Worker) -> None:
        task = worker.held.popleft()
        seconds = self.nominal_s(task.shard)
        if worker.slow or self._chance.random() < self.world.stragglers:
            seconds *= self.world.slowdown
        worker.running, worker.began_at = task, self.now
        worker.ends_at = self.now + seconds
        poison = self._poison.get(task.shard)
        if poison == "kill":
            self._at(self.now + seconds * self._chance.random(), "poisoned", worker.number, task)
        if poison is None:
            self._at(worker.ends_at, "end", worker.number)
        else:
            worker.ends_at = math.inf

    def _model_done(self, worker: _Worker, task: ShardTask) -> None:
        self._writing[worker.number, task.shard] = self.now - worker.began_at
        worker.running, worker.ends_at = None, math.inf
        self._at(self.now + self.world.write_s, "written", worker.number, task)
        if worker.held:
            self._begin(worker)

    def _written(self, number: int, task: ShardTask) -> None:
        spent_s = self._writing.pop((number, task.shard))
        first = task.shard not in self.committed and number in self._workers
        if first:
            self.ledger.useful_s += spent_s
        else:
            self.ledger.lost_s += spent_s
        if number in self._workers:
            self.committed[task.shard] = self.committed.get(task.shard, 0) + first
            self._out.append(ShardFinished(number, task, self._report(task, first=first)))

    def _report(self, task: ShardTask, *, first: bool) -> ShardReport:
        images = self.world.images
        seconds = self.nominal_s(task.shard)
        return ShardReport(
            shard=task.shard,
            attempt=task.attempt,
            outcome="committed" if first else "lost_race",
            n_in=images,
            n_ok=images,
            n_err=0,
            n_edits=images,
            bytes_in=1,
            bytes_out=1,
            read_s=self.world.read_s,
            model_s=seconds,
            wait_s=0.0,
            write_s=self.world.write_s,
            host="machine",
        )

    def _end(self, number: int, reason: str, *, node_lost: bool) -> None:
        worker = self._workers.pop(number)
        self.ledger.held_s += self.now - worker.placed_at
        if not worker.ready:
            self.ledger.starting_s += self.now - worker.placed_at
        if worker.running is not None:
            self.ledger.lost_s += self.now - worker.began_at
        if node_lost:
            self._at(self.now + self.world.notice_s, "lost", number)
            self._at(self.now + self.world.away_s, "machine", number)
        else:
            self._out.append(WorkerDied(number, reason, node_lost=False))
            self._at(self.now, "machine", number)
