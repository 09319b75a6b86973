"""What a failure costs and when a run is over: no Ray, no threads, no clock in it.

Facts go in (`observe`, `heartbeats`), orders come out (`orders`). The rules, each with its reason:
a shard is charged an attempt only after it has started; losing a machine is free; a worker's death
charges all that ran on it, because nobody knows which did it, and each of those is then tried
*alone*, so that only a shard that fails by itself is given up; damage is given up at once; what is
no shard's fault stops the run. Who gets which shard is `cluster.scheduling.dispatch`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
from cluster.scheduling.dispatch import Dispatch
from cluster.scheduling.fleet import Fleet, Worker
from cluster.scheduling.orders import (
    EXIT_BUDGET,
    EXIT_FAILED,
    EXIT_REFUSED,
    Cancel,
    Counts,
    KillWorker,
    Order,
    Quarantine,
    Release,
    Rules,
    StartWorker,
    Stop,
)
from cluster.scheduling.places import Places
from cluster.scheduling.shard_queue import Shard, ShardQueue
from cluster.scheduling.verdicts import Raised
from cluster.scheduling.watch import Watch


class Schedule:
    """The state of one driver run over `shards` (name -> URL, in the order they are to be done)."""

    def __init__(self, shards: Mapping[str, str], rules: Rules) -> None:
        self._rules = rules
        self._queue = ShardQueue(shards)
        self._fleet = Fleet(min(rules.workers, len(shards)), rules.in_flight)
        self._dispatch = Dispatch(self._queue, self._fleet, rules)
        self._places = Places(self._fleet, rules.max_start_failures)
        self._budget = ErrorBudget(rules.max_error_rate)
        self._queued: list[Order] = []
        self._watch = Watch(rules)
        self._draining = False
        self.stopped: Stop | None = None

    @property
    def counts(self) -> Counts:
        """Where the shards are."""
        return self._queue.counts

    @property
    def ready_workers(self) -> int:
        """Workers that hold a model."""
        return self._fleet.ready

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

    def release(self) -> None:
        """Let the workers stop the shards in flight, which are left for the next run."""
        self._draining = True
        self._queued += [Cancel(w.number, shard) for w in self._fleet for shard in w.sent]

    def found_committed(self, names: Iterable[str]) -> None:
        """Another writer has done these."""
        self._queue.found_committed(names)

    def no_machine_left(self, reason: str) -> None:
        """All machines are avoided."""
        self._stop(EXIT_FAILED, f"no worker stays up on any machine: {reason}")

    # -- facts in --------------------------------------------------------------------------------

    def observe(self, event: Event, now: float) -> None:
        """Take in what a pool reports; `now` is a monotonic clock in seconds."""
        if isinstance(event, ShardFinished):
            self._finished(event, now)
            return
        worker = self._fleet.get(event.worker)
        if worker is None:  # the last words of a worker already given up
            return
        match event:
            case WorkerPlaced(node=node):
                worker.node = node
                self._fleet.advance(worker, "placed", now)
            case WorkerReady():
                self._fleet.advance(worker, "ready", now)
            case WorkerFailedToStart(_, raised, node_lost):
                self._fleet.remove(worker)
                if raised.verdict == "refused":
                    self._stop(EXIT_REFUSED, raised.message)
                elif not node_lost:
                    self._start_failed(worker, str(raised))
            case ShardStarted(_, task):
                if worker.sent.get(task.shard) == task:
                    self._fleet.begin(worker, task.shard, now)
                    self._queue[task.shard].starts += 1
            case ShardRaised():
                self._raised(worker, event, now)
            case WorkerDied(_, reason, node_lost):
                death = Raised("WorkerDied", f"the worker died: {reason}", "", "retry")
                self._bury(worker, death, now, node_lost=node_lost)

    def heartbeats(self, images: Mapping[int, int], now: float) -> None:
        """Images finished by each worker; more than before means that it lives."""
        for number, count in images.items():
            worker = self._fleet.get(number)
            if worker is not None and count > worker.images:
                worker.images, worker.progress_at = count, now

    # -- orders out ------------------------------------------------------------------------------

    def orders(self, now: float) -> list[Order]:
        """What to do now; every order is given once."""
        orders, self._queued = self._queued, []
        if self.stopped:
            return orders
        for worker, reason in self._watch.silent(self._fleet, now):
            self._fleet.kill(worker)
            orders.append(KillWorker(worker.number, reason))
        if not self._draining:
            counts = self.counts
            missing = counts.waiting + counts.in_flight - len(self._fleet)
            orders += [StartWorker(w.number) for w in self._fleet.start(missing, now)]
            orders += self._dispatch.submissions(now)
            orders += self._dispatch.spare(now)
        return orders

    # -- what happened to a shard ----------------------------------------------------------------

    def _finished(self, event: ShardFinished, now: float) -> None:
        worker = self._fleet.get(event.worker)
        shard = self._queue[event.task.shard]
        if worker is not None and worker.sent.get(shard.name) == event.task:
            spent_s = self._take_back(worker, shard, now)
            if spent_s is not None:
                self._dispatch.times.add(spent_s)
            self._places.worked(worker)
        if shard.state == "done":
            return
        if shard.state == "quarantined":
            self._queued.append(Release(shard.name))
        self._queue.move(shard, "done")
        if shard.copies:
            late = [w.number for w in self._fleet if shard.name in w.sent]
            self._queued += [Cancel(number, shard.name) for number in late]
        self._budget.add(event.report)
        self._check_budget()

    def _raised(self, worker: Worker, event: ShardRaised, now: float) -> None:
        shard, raised = self._queue[event.task.shard], event.raised
        if worker.sent.get(shard.name) != event.task:
            return
        if raised.verdict == "worker_broken":
            self._queued.append(KillWorker(event.worker, f"it raised {raised}"))
            self._bury(worker, raised, now, node_lost=False)
            return
        self._take_back(worker, shard, now)
        if shard.state != "sent":  # done meanwhile by another worker
            return
        if raised.verdict == "cancelled":
            self._again(shard, now)
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
        if last and self.stopped is None and (raised.verdict == "damaged" or not shard.copies):
            self._give_up(shard, raised)
        else:
            self._again(shard, now + pause_s)

    def _bury(self, worker: Worker, death: Raised, now: float, *, node_lost: bool) -> None:
        self._fleet.remove(worker)
        guilty = len(worker.started) == 1
        front = next(iter(worker.started), None)  # what its model had in hand
        for name in worker.sent:
            shard = self._queue[name]
            shard.copies -= 1
            if shard.state != "sent":
                continue
            if name in worker.started and not node_lost:
                shard.charges += 1
                if worker.killed and name == front:  # silence costs too long to be seen three times
                    shard.charges = max(shard.charges, self._rules.max_attempts - 1)
                shard.alone = True
                shard.avoid = worker.number
                spent = shard.charges >= self._rules.max_attempts
                if guilty and spent and not shard.copies:
                    self._give_up(shard, death)
                    continue
            self._again(shard, now)
        if not worker.started and not node_lost:
            self._start_failed(worker, str(death))

    def _take_back(self, worker: Worker, shard: Shard, now: float) -> float | None:
        shard.copies -= 1
        return self._fleet.take(worker, shard.name, now)

    def _again(self, shard: Shard, due: float) -> None:
        """Unless another worker still has it in hand."""
        if not shard.copies:
            self._queue.retry(shard, due)

    def _give_up(self, shard: Shard, raised: Raised) -> None:
        self._queue.move(shard, "quarantined")
        reason = raised.message if raised.kind == "WorkerDied" else str(raised)
        self._queued.append(
            Quarantine(shard.name, shard.url, reason, raised.traceback, shard.charges)
        )
        self._check_budget()

    # -- what ends a run -------------------------------------------------------------------------

    def _start_failed(self, worker: Worker, reason: str) -> None:
        order = self._places.failed(worker, reason)
        if isinstance(order, Stop):
            self._stop(order.exit_code, order.sentence)
        elif order is not None:
            self._queued.append(order)

    def _check_budget(self) -> None:
        overdrawn = self._budget.overdrawn(self.counts)
        if overdrawn:
            self._stop(EXIT_BUDGET, overdrawn)

    def _stop(self, exit_code: int, sentence: str) -> None:
        if self.stopped is None:
            self.stopped = Stop(exit_code, sentence)
