"""The driver loop: carries out what the schedule orders and tells it what the workers report."""

from __future__ import annotations

import logging
import time

from rich.console import Console

from cluster.drain import Drain
from cluster.events import EventLog
from cluster.interrupts import Interrupts
from cluster.pools.protocol import (
    Event,
    Pool,
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.progress import ProgressLine, Tally, line
from cluster.scheduling.orders import (
    AvoidMachine,
    Cancel,
    KillWorker,
    LetGo,
    Order,
    Quarantine,
    Release,
    StartWorker,
    Submit,
)
from cluster.scheduling.schedule import Schedule
from lib.files import storage
from lib.ledger import quarantine
from lib.ledger.run_folder import RunFolder

_POLL_S = 0.5
_BEAT_S = 1.0
_REFRESH_S = 60.0
_REFRESH_SHARE = 0.05
"""At most this part of the time goes into listing what other drivers have committed."""
_log = logging.getLogger(__name__)


class Driver:
    """One driver run over the pending shards of a folder."""

    def __init__(
        self,
        folder: RunFolder,
        schedule: Schedule,
        pool: Pool,
        events: EventLog,
        tally: Tally,
        *,
        drain_timeout_s: float | None = None,
    ) -> None:
        self._folder = folder
        self._schedule = schedule
        self._pool = pool
        self._events = events
        self._tally = tally
        self._drain_timeout_s = drain_timeout_s
        self._beat_at = 0.0
        self._refresh_at = time.monotonic() + _REFRESH_S

    def run(self, console: Console, done_before: int, lost_before: int) -> str:
        """Until the schedule is over; returns the name of the signal that ended it early, or "".

        Raises:
            OSError: the run folder cannot be written.
            ClusterLostError: the cluster went away.
            KeyboardInterrupt: a second signal came.

        """

        def text(now: float) -> str:
            return line(self._schedule.counts, self._tally, done_before, lost_before, now)

        drain = Drain(self._schedule, self._events, self._drain_timeout_s)
        with (
            Interrupts() as interrupts,
            ProgressLine(console, text, time.monotonic()) as progress,
        ):
            while True:
                now = time.monotonic()
                for order in self._schedule.orders(now):
                    self._carry_out(order)
                if self._schedule.over:
                    break
                for event in self._pool.poll(_POLL_S):
                    now = time.monotonic()
                    self._note(event, now)
                    self._schedule.observe(event, now)
                now = time.monotonic()
                if now >= self._beat_at:
                    self._beat_at = now + _BEAT_S
                    self._schedule.heartbeats(self._pool.heartbeats(), now)
                self._tally.pass_time(self._schedule.ready_workers, now)
                for sentence in drain.tick(interrupts.asked, now):
                    progress.say(sentence)
                self._refresh(now)
                self._events.tick(now)
                progress.tick(now)
            progress.finish(time.monotonic())
        return interrupts.asked

    def _carry_out(self, order: Order) -> None:
        match order:
            case StartWorker(worker):
                self._pool.start(worker)
            case KillWorker(worker, reason):
                _log.warning("worker %d is ended: %s", worker, reason)
                self._pool.kill(worker, reason)
            case LetGo(worker):
                self._pool.let_go(worker)
                self._events.add("worker_let_go", worker=worker)
            case Submit(worker, task):
                self._pool.submit(worker, task)
            case Cancel(worker, shard):
                self._pool.cancel(worker, shard)
            case AvoidMachine(node, reason):
                _log.warning("no more workers are placed on machine %s: %s", node, reason)
                self._events.add("machine_avoided", node=node, reason=reason)
                if not self._pool.avoid(node):
                    self._schedule.no_machine_left(reason)
            case Release(shard):
                quarantine.release(self._folder, shard)
            case Quarantine():
                self._give_up(order)

    def _give_up(self, order: Quarantine) -> None:
        """Unless a worker that died after its commit, or another driver, has done it."""
        if storage.exists(self._folder.commit_url(order.shard)):
            self._schedule.found_committed([order.shard])
            return
        _log.warning("shard %s is given up: %s", order.shard, order.reason)
        quarantine.quarantine(
            self._folder,
            order.shard,
            order.url,
            order.reason,
            order.traceback or None,
            order.attempts,
        )
        self._events.add(
            "quarantined", shard=order.shard, reason=order.reason, attempts=order.attempts
        )

    def _note(self, event: Event, now: float) -> None:
        add = self._events.add
        match event:
            case WorkerPlaced():
                pass
            case WorkerReady(worker, host, pid):
                add("worker_ready", worker=worker, host=host, pid=pid)
            case WorkerFailedToStart(worker, raised, node_lost):
                _log.warning("worker %d could not start: %s", worker, raised)
                add(
                    "worker_died",
                    worker=worker,
                    reason=f"could not start: {raised}",
                    node_lost=node_lost,
                )
            case ShardStarted(worker, task):
                add("shard_started", shard=task.shard, attempt=task.attempt, worker=worker)
            case ShardFinished(worker, _, report):
                self._tally.add(report, now)
                add("shard_done", worker=worker, report=report)
            case ShardRaised(worker, task, raised):
                _log.warning("shard %s, attempt %d: %s", task.shard, task.attempt, raised)
                add(
                    "shard_failed",
                    shard=task.shard,
                    attempt=task.attempt,
                    worker=worker,
                    error=str(raised),
                    verdict=raised.verdict,
                )
            case WorkerDied(worker, reason, node_lost):
                _log.warning("worker %d died: %s", worker, reason)
                add("worker_died", worker=worker, reason=reason, node_lost=node_lost)

    def _refresh(self, now: float) -> None:
        """Two drivers may share a folder: what the other has done need not be done here."""
        if now < self._refresh_at:
            return
        self._schedule.found_committed(self._folder.committed())
        end = time.monotonic()
        self._refresh_at = end + max(_REFRESH_S, (end - now) / _REFRESH_SHARE)
