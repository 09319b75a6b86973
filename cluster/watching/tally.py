"""A driver run in numbers, from what its pool reports: the source of the progress line, of its
record under drivers/, of the summary at its end and of its metrics.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from typing import Literal

from cluster.pools.protocol import (
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.orders import Counts, KillWorker, LetGo, Quarantine
from cluster.watching.observer import Noted
from lib.ledger.work import Work
from lib.receipts import ShardReport, ShardTask

_WINDOW_S = 900.0
"""The rate is that of the last quarter of an hour: workers come and go."""

Cause = Literal["machine lost", "died", "stalled", "broken", "could not start"]
"""Why a worker ended. stalled: it was ended because it did nothing; broken: because of what it
raised, such as a CUDA error."""


class Tally:
    """Adds up one driver run; see `cluster.watching.observer.Observer`."""

    def __init__(self, started_at: float, gpus_per_worker: float = 0.0) -> None:
        self.work = Work()
        """Without the workers' time and the wall time, which `upto` knows."""
        self._started_at = started_at
        self._stopped_at: float | None = None
        self._gpus = gpus_per_worker
        self._placed: dict[int, float] = {}
        self._ready: dict[int, float] = {}
        self._heard: dict[int, float] = {}
        """When a ready worker's last receipt came."""
        self._doomed: dict[int, Cause] = {}
        self._begun: dict[int, set[str]] = {}
        """Worker -> shards that it has begun and not ended."""
        self._copies: Counter[str] = Counter()
        """Shard -> workers that have begun it and not ended it."""
        self._past_held_s = 0.0
        self._past_ready_s = 0.0
        self._finished: set[str] = set()
        self._first_ready_at: float | None = None
        self._last_at = 0.0
        """Of the last receipt. Rates are up to then: what is in flight since is not known."""
        self._recent: deque[tuple[float, int]] = deque()

    @property
    def ready_workers(self) -> int:
        """Workers that hold a model."""
        return len(self._ready)

    @property
    def loading_workers(self) -> int:
        """Processes that are there and hold none yet."""
        return len(self._placed) - len(self._ready)

    def noted(self, fact: Noted, now: float) -> None:
        """Something happened."""
        match fact:
            case WorkerPlaced(worker):
                self._placed[worker] = now
            case WorkerReady(worker):
                self._placed.setdefault(worker, now)
                self._ready[worker] = self._heard[worker] = now
                if self._first_ready_at is None:
                    self._first_ready_at = now
            case LetGo(worker):
                self._end(worker, now)
            case KillWorker(worker):
                self._doomed.setdefault(worker, "stalled")
            case WorkerDied(worker) | WorkerFailedToStart(worker):
                self._count(self.work.deaths, self.cause(fact))
                self.work.lost += len(self._begun.get(worker, ()))
                self._end(worker, now)
            case Quarantine():
                self.work.given_up += 1
            case ShardStarted(worker, task):
                self._begin(worker, task)
            case ShardRaised(worker, task, raised):
                self._let_be(worker, task.shard)
                if raised.verdict == "cancelled":
                    self.work.cancelled += 1
                else:
                    self._count(self.work.failures, raised.verdict)
                if raised.verdict == "worker_broken":
                    self._doomed[worker] = "broken"
            case ShardFinished(worker, task, report):
                self._let_be(worker, task.shard)
                if worker in self._ready:
                    self._heard[worker] = now
                self._receipt(report, now, counts=self.is_first(fact))
                self._finished.add(task.shard)

    def tick(self, counts: Counts, now: float) -> None:
        """Nothing is reckoned by the clock alone."""

    def cause(self, death: WorkerDied | WorkerFailedToStart) -> Cause:
        """Why a worker ended, as far as it was heard."""
        if death.node_lost:
            return "machine lost"
        usual: Cause = "died" if isinstance(death, WorkerDied) else "could not start"
        return self._doomed.get(death.worker, usual)

    def is_first(self, finished: ShardFinished) -> bool:
        """Whether this result is the one that counts: a late twin of the same bytes says
        `committed` too.
        """
        return finished.report.outcome == "committed" and (
            finished.task.shard not in self._finished
        )

    def stop(self, now: float) -> None:
        """The run is over, and its workers are sent home."""
        for worker in list(self._placed):
            self._end(worker, now)
        self._stopped_at = now

    def upto(self, now: float) -> Work:
        """Everything up to now. Of the living workers all time is held, but ready only up to their
        last receipt: what they do since is not known yet.
        """
        now = now if self._stopped_at is None else self._stopped_at
        held_s = self._past_held_s + sum(now - since for since in self._placed.values())
        return replace(
            self.work,
            held_s=held_s,
            gpu_held_s=held_s * self._gpus,
            ready_s=self._past_ready_s
            + sum(self._heard[worker] - since for worker, since in self._ready.items()),
            wall_s=now - self._started_at,
        )

    def rate(self) -> float:
        """Images a second, lately."""
        if self._first_ready_at is None or not self._recent:
            return 0.0
        span_s = min(_WINDOW_S, self._last_at - self._first_ready_at)
        return sum(count for _, count in self._recent) / span_s if span_s > 0 else 0.0

    def left_s(self, shards: int, now: float) -> float | None:
        """Seconds until `shards` more are done; None where nothing tells."""
        rate = self.rate()
        if not shards:
            return 0.0
        if not rate:
            return None
        seconds = shards * self.work.images / self.work.shards / rate - (now - self._last_at)
        return seconds if seconds > 0 else None

    def _receipt(self, report: ShardReport, now: float, *, counts: bool) -> None:
        self.work.add(report, counts=counts)
        if not counts:
            return
        self._last_at = now
        self._recent.append((now, report.n_in))
        while self._recent[0][0] < now - _WINDOW_S:
            self._recent.popleft()

    def _end(self, worker: int, now: float) -> None:
        self._past_held_s += now - self._placed.pop(worker, now)
        self._past_ready_s += now - self._ready.pop(worker, now)
        self._heard.pop(worker, None)
        self._doomed.pop(worker, None)
        for shard in list(self._begun.get(worker, ())):
            self._let_be(worker, shard)

    def _begin(self, worker: int, task: ShardTask) -> None:
        self.work.attempts += 1
        if self._copies[task.shard]:
            self.work.doubled += 1
        elif task.attempt > 1:
            self.work.again += 1
        self._copies[task.shard] += 1
        self._begun.setdefault(worker, set()).add(task.shard)

    def _let_be(self, worker: int, shard: str) -> None:
        begun = self._begun.get(worker, set())
        if shard not in begun:
            return
        begun.discard(shard)
        if not begun:
            del self._begun[worker]
        self._copies[shard] -= 1
        if not self._copies[shard]:
            del self._copies[shard]

    @staticmethod
    def _count(counts: dict[str, int], key: str) -> None:
        counts[key] = counts.get(key, 0) + 1
