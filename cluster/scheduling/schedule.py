"""Which worker gets which shard when, and what a failure costs: no Ray, no threads, no clock in it.

Facts go in (`observe`, `heartbeats`), orders come out (`orders`). The rules, each with its reason:
a shard is charged an attempt only after it has started; losing a machine is free; a worker's death
charges all that ran on it, because nobody knows which did it, and each of those is then tried
*alone*, so that only a shard that fails by itself is given up; damage is given up at once; what is
no shard's fault stops the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cluster.pools.protocol import (
    Event,
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.budget import ErrorBudget
from cluster.scheduling.orders import (
    EXIT_BUDGET,
    EXIT_FAILED,
    EXIT_REFUSED,
    Counts,
    KillWorker,
    Order,
    Quarantine,
    Release,
    Rules,
    StartWorker,
    Stop,
    Submit,
)
from cluster.scheduling.shard_queue import Shard, ShardQueue
from cluster.scheduling.verdicts import Raised
from lib.receipts import ShardTask


@dataclass(slots=True)
class _Slot:
    failures: int = 0
    retired: bool = False


@dataclass(slots=True)
class _Worker:
    slot: _Slot
    progress_at: float
    state: Literal["starting", "placed", "ready"] = "starting"
    images: int = 0
    killed: bool = False
    exclusive: bool = False
    sent: dict[str, ShardTask] = field(default_factory=dict)
    started: set[str] = field(default_factory=set)


class Schedule:
    """The state of one driver run over `shards` (name -> URL, in the order they are to be done)."""

    def __init__(self, shards: Mapping[str, str], rules: Rules) -> None:
        self._rules = rules
        self._queue = ShardQueue(shards)
        self._slots = [_Slot() for _ in range(min(rules.workers, len(shards)))]
        self._workers: dict[int, _Worker] = {}
        self._next_worker = 0
        self._queued: list[Order] = []
        self._budget = ErrorBudget(rules.max_error_rate)
        self._draining = False
        self.stopped: Stop | None = None

    @property
    def counts(self) -> Counts:
        """Where the shards are."""
        return self._queue.counts

    @property
    def ready_workers(self) -> int:
        """Workers that hold a model."""
        return sum(worker.state == "ready" for worker in self._workers.values())

    @property
    def over(self) -> bool:
        """Nothing is left to wait for, once the orders that are due have been carried out."""
        counts = self.counts
        if self.stopped or not (counts.waiting or counts.in_flight):
            return True
        return self._draining and not counts.in_flight

    def drain(self) -> None:
        """Send no more shards; `over` once those in flight have ended."""
        self._draining = True

    def found_committed(self, names: Iterable[str]) -> None:
        """Another writer has done these."""
        self._queue.found_committed(names)

    # -- facts in --------------------------------------------------------------------------------

    def observe(self, event: Event, now: float) -> None:
        """Take in what a pool reports; `now` is a monotonic clock in seconds."""
        if isinstance(event, ShardFinished):
            self._finished(event, now)
            return
        worker = self._workers.get(event.worker)
        if worker is None:  # the last words of a worker already given up
            return
        match event:
            case WorkerPlaced():
                worker.state, worker.progress_at = "placed", now
            case WorkerReady():
                worker.state, worker.progress_at = "ready", now
            case WorkerFailedToStart(number, raised, node_lost):
                del self._workers[number]
                if raised.verdict == "refused":
                    self._stop(EXIT_REFUSED, raised.message)
                elif not node_lost:
                    self._slot_failed(worker.slot, str(raised))
            case ShardStarted(_, task):
                if worker.sent.get(task.shard) == task:
                    worker.started.add(task.shard)
                    worker.progress_at = now
                    self._queue[task.shard].starts += 1
            case ShardRaised():
                self._raised(worker, event, now)
            case WorkerDied(number, reason, node_lost):
                death = Raised("WorkerDied", f"the worker died: {reason}", "", "retry")
                self._bury(number, death, now, node_lost=node_lost)

    def heartbeats(self, images: Mapping[int, int], now: float) -> None:
        """Images finished by each worker; more than before means that it lives."""
        for number, count in images.items():
            worker = self._workers.get(number)
            if worker is not None and count > worker.images:
                worker.images, worker.progress_at = count, now

    # -- orders out ------------------------------------------------------------------------------

    def orders(self, now: float) -> list[Order]:
        """What to do now; every order is given once."""
        orders, self._queued = self._queued, []
        if self.stopped:
            return orders
        orders += self._kills(now)
        if not self._draining:
            orders += self._starts(now)
            orders += self._submissions(now)
        return orders

    def _kills(self, now: float) -> list[Order]:
        kills: list[Order] = []
        for number, worker in self._workers.items():
            silent_s = now - worker.progress_at
            if worker.killed or worker.state == "starting":
                continue
            if worker.state == "ready" and worker.sent and silent_s > self._rules.stall_timeout_s:
                reason = f"it finished no image for {self._rules.stall_timeout_s:g} s"
            elif worker.state == "placed" and silent_s > self._rules.start_timeout_s:
                reason = f"it was not ready after {self._rules.start_timeout_s:g} s"
            else:
                continue
            worker.killed = True
            kills.append(KillWorker(number, reason))
        return kills

    def _starts(self, now: float) -> list[Order]:
        used = {id(worker.slot) for worker in self._workers.values()}
        counts = self.counts
        missing = counts.waiting + counts.in_flight - len(used)
        empty = [s for s in self._slots if not s.retired and id(s) not in used]
        starts: list[Order] = []
        for slot in empty[: max(0, missing)]:
            self._workers[self._next_worker] = _Worker(slot, now)
            starts.append(StartWorker(self._next_worker))
            self._next_worker += 1
        return starts

    def _submissions(self, now: float) -> list[Order]:
        ready = {n: w for n, w in self._workers.items() if w.state == "ready" and not w.killed}
        if not ready:
            return []
        submits: list[Order] = []
        company: list[Shard] = []
        held_back = 0
        for shard in self._queue.due(now):
            idle = [number for number, worker in ready.items() if not worker.sent]
            if not shard.alone:
                company.append(shard)
            elif idle:
                chosen = min(idle, key=lambda number: number == shard.avoid)
                ready[chosen].exclusive = True
                submits.append(self._send(chosen, shard, now))
            else:
                held_back += 1
                self._queue.retry(shard, now)
        shared = [number for number, worker in ready.items() if not worker.exclusive]
        shared.sort(key=lambda number: len(ready[number].sent))
        # The least busy are left to run empty, one for each shard that must be alone.
        for depth in range(self._rules.in_flight):
            for number in shared[held_back:]:
                if len(ready[number].sent) > depth or not self._enough_for(depth):
                    continue
                found = self._choose(number, company, any_worker=len(ready) == 1)
                if found is not None:
                    submits.append(self._send(number, found, now))
        for shard in company:
            self._queue.retry(shard, now)
        return submits

    def _enough_for(self, depth: int) -> bool:
        """Whether a worker may have a shard beyond `depth` others. The last shards wait for whoever
        is free first: none is fetched ahead that another worker, also one that still starts, could
        begin sooner.
        """
        if not depth:
            return True
        rivals = sum(len(worker.sent) <= depth for worker in self._workers.values())
        return self._queue.counts.waiting >= rivals

    def _choose(self, number: int, company: list[Shard], *, any_worker: bool) -> Shard | None:
        for position, shard in enumerate(company):
            if any_worker or shard.avoid != number:
                return company.pop(position)
        return self._queue.fresh()

    def _send(self, number: int, shard: Shard, now: float) -> Submit:
        worker = self._workers[number]
        task = ShardTask(shard.name, shard.url, shard.starts + 1)
        if not worker.sent:
            worker.progress_at = now
        worker.sent[shard.name] = task
        self._queue.move(shard, "sent")
        return Submit(number, task)

    # -- what happened to a shard ----------------------------------------------------------------

    def _finished(self, event: ShardFinished, now: float) -> None:
        worker = self._workers.get(event.worker)
        shard = self._queue[event.task.shard]
        if worker is not None and worker.sent.get(shard.name) == event.task:
            self._take_back(worker, shard, now)
            worker.slot.failures = 0
        if shard.state == "done":
            return
        if shard.state == "quarantined":
            self._queued.append(Release(shard.name))
        self._queue.move(shard, "done")
        self._budget.add(event.report)
        self._check_budget()

    def _raised(self, worker: _Worker, event: ShardRaised, now: float) -> None:
        shard, raised = self._queue[event.task.shard], event.raised
        if worker.sent.get(shard.name) != event.task:
            return
        if raised.verdict == "worker_broken":
            self._queued.append(KillWorker(event.worker, f"it raised {raised}"))
            self._bury(event.worker, raised, now, node_lost=False)
            return
        self._take_back(worker, shard, now)
        if shard.state != "sent":  # done meanwhile by the late report of another worker
            return
        shard.charges += 1
        shard.avoid = event.worker
        last = shard.charges >= self._rules.max_attempts
        pause_s = self._rules.retry_pause_s * shard.charges
        if raised.verdict == "vanished":
            last = shard.vanished
            shard.vanished = True
            pause_s = self._rules.vanished_pause_s
        match raised.verdict:
            case "refused":
                self._stop(EXIT_REFUSED, raised.message)
            case "output_refused":
                self._stop(EXIT_FAILED, f"the output folder takes no more writes: {raised}")
            case "output_failed" if last:
                self._stop(
                    EXIT_FAILED,
                    f"writing the result of shard {shard.name} failed {shard.charges} times,"
                    f" last with {raised}",
                )
            case "damaged":
                last = True
        if last and self.stopped is None:
            self._give_up(shard, raised)
        else:
            self._queue.retry(shard, now + pause_s)

    def _bury(self, number: int, death: Raised, now: float, *, node_lost: bool) -> None:
        worker = self._workers.pop(number)
        for name in worker.sent:
            shard = self._queue[name]
            if shard.state != "sent":
                continue
            if name in worker.started and not node_lost:
                shard.charges += 1
                shard.alone = True
                shard.avoid = number
                guilty = len(worker.started) == 1
                if guilty and shard.charges >= self._rules.max_attempts:
                    self._give_up(shard, death)
                    continue
            self._queue.retry(shard, now)
        if not worker.started and not node_lost:
            self._slot_failed(worker.slot, str(death))

    def _take_back(self, worker: _Worker, shard: Shard, now: float) -> None:
        worker.sent.pop(shard.name, None)
        worker.started.discard(shard.name)
        worker.exclusive = False
        worker.progress_at = now

    def _give_up(self, shard: Shard, raised: Raised) -> None:
        self._queue.move(shard, "quarantined")
        reason = raised.message if raised.kind == "WorkerDied" else str(raised)
        self._queued.append(
            Quarantine(shard.name, shard.url, reason, raised.traceback, shard.charges)
        )
        self._check_budget()

    # -- what ends a run -------------------------------------------------------------------------

    def _slot_failed(self, slot: _Slot, reason: str) -> None:
        slot.failures += 1
        slot.retired = slot.failures >= self._rules.max_start_failures
        if all(each.retired for each in self._slots):
            self._stop(
                EXIT_FAILED,
                f"no worker stays up, {slot.failures} tries in each of {len(self._slots)} places:"
                f" {reason}",
            )

    def _check_budget(self) -> None:
        overdrawn = self._budget.overdrawn(self.counts)
        if overdrawn:
            self._stop(EXIT_BUDGET, overdrawn)

    def _stop(self, exit_code: int, sentence: str) -> None:
        if self.stopped is None:
            self.stopped = Stop(exit_code, sentence)
