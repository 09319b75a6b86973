"""The driver loop: carries out what the schedule orders and tells it what the workers report."""

from __future__ import annotations

import logging
import time

from rich.console import Console

from cluster.events import PATIENCE_S, EventLog
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
    KillWorker,
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
_REFRESH_S = 60.0
_REFRESH_SHARE = 0.05
"""At most this part of the time goes into listing what other drivers have committed."""
_log = logging.getLogger(__name__)


class Driver:
    """One driver run over the pending shards of a folder."""

    def __init__(
        self, folder: RunFolder, schedule: Schedule, pool: Pool, events: EventLog, tally: Tally
    ) -> None:
        self._folder = folder
        self._schedule = schedule
        self._pool = pool
        self._events = events
        self._tally = tally
        self._refresh_at = time.monotonic() + _REFRESH_S
        self._unread: set[str] = set()
        """Shards whose store did not answer."""

    def run(self, console: Console, done_before: int, lost_before: int) -> str:
        """Until the schedule is over; returns the name of the signal that ended it early, or "".

        Raises:
            StoreUnavailableError: the store of the run folder or of the input is down.
            OSError: the run folder cannot be written.
            ClusterLostError: the cluster went away.
            KeyboardInterrupt: a second signal came.

        """

        def text(now: float) -> str:
            return line(self._schedule.counts, self._tally, done_before, lost_before, now)

        draining = False
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
                # Both may wait for the store, so they come before the heartbeats: what a worker did
                # meanwhile must be known when the next orders are made.
                self._refresh(now)
                self._events.tick(now)
                for event in self._pool.poll(_POLL_S):
                    now = time.monotonic()
                    self._note(event, now)
                    self._schedule.observe(event, now)
                now = time.monotonic()
                self._schedule.heartbeats(self._pool.heartbeats(), now)
                self._tally.pass_time(self._schedule.ready_workers, now)
                if interrupts.asked and not draining:
                    draining = True
                    self._schedule.drain()
                    flying = self._schedule.counts.in_flight
                    progress.say(
                        f"{interrupts.asked}: finishing the {flying} shards in flight, starting no"
                        " more; once more stops at once"
                    )
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
            case Submit(worker, task):
                self._pool.submit(worker, task)
            case Release(shard):
                quarantine.release(self._folder, shard)
            case Quarantine():
                self._give_up(order)

    def _give_up(self, order: Quarantine) -> None:
        """Unless a worker that died after its commit, or another driver, has done it."""
        if storage.exists(self._folder.commit_url(order.shard)):
            self._schedule.found_committed([order.shard])
            return
        if order.shard in self._unread:
            with storage.patience(PATIENCE_S):
                storage.exists(order.url)  # where even that fails, the store is to blame, no shard
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
                if raised.verdict == "unavailable":
                    self._unread.add(task.shard)
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
        try:
            with storage.patience(PATIENCE_S):
                self._schedule.found_committed(self._folder.committed())
        except storage.StoreUnavailableError as error:
            _log.warning("%s; what other drivers have done is looked up later", error)
        end = time.monotonic()
        self._refresh_at = end + max(_REFRESH_S, (end - now) / _REFRESH_SHARE)
