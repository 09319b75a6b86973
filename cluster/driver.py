"""The driver loop: carries out what the schedule orders and tells it what the workers report."""

from __future__ import annotations

import logging
import time

from cluster.drain import Drain
from cluster.events import PATIENCE_S
from cluster.interrupts import Interrupts
from cluster.pools.commands import command
from cluster.pools.protocol import Pool, ShardRaised
from cluster.scheduling.orders import (
    AvoidMachine,
    Order,
    Quarantine,
    Release,
)
from cluster.scheduling.schedule import Schedule
from cluster.watching.monitor import Monitor
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
        monitor: Monitor,
        *,
        drain_timeout_s: float | None = None,
    ) -> None:
        self._folder = folder
        self._schedule = schedule
        self._pool = pool
        self._monitor = monitor
        self._drain_timeout_s = drain_timeout_s
        self._beat_at = 0.0
        self._refresh_at = time.monotonic() + _REFRESH_S
        self._unread: set[str] = set()
        """Shards whose store did not answer."""

    def run(self) -> str:
        """Until the schedule is over; returns the name of the signal that ended it early, or "".

        Raises:
            StoreUnavailableError: the store of the run folder or of the input is down.
            OSError: the run folder cannot be written.
            ClusterLostError: the cluster went away.
            KeyboardInterrupt: a second signal came.

        """
        drain = Drain(self._schedule, self._monitor, self._drain_timeout_s)
        with Interrupts() as interrupts:
            while True:
                now = time.monotonic()
                for order in self._schedule.orders(now):
                    self._carry_out(order)
                if self._schedule.over:
                    break
                # Both may wait for the store, so they come before the heartbeats: what a worker did
                # meanwhile must be known when the next orders are made.
                self._refresh(now)
                self._monitor.tick(now)
                for event in self._pool.poll(_POLL_S):
                    now = time.monotonic()
                    self._monitor.noted(event, now)
                    self._schedule.observe(event, now)
                    if isinstance(event, ShardRaised) and event.raised.verdict == "unavailable":
                        self._unread.add(event.task.shard)
                now = time.monotonic()
                if now >= self._beat_at:
                    self._beat_at = now + _BEAT_S
                    self._schedule.heartbeats(self._pool.heartbeats(), now)
                drain.tick(interrupts.asked, now)
        return interrupts.asked

    def _carry_out(self, order: Order) -> None:
        if not isinstance(order, Quarantine):  # which may turn out to be none
            self._monitor.noted(order, time.monotonic())
        left = command(self._pool, order)
        match order:
            case AvoidMachine(_, reason) if not left:
                self._schedule.no_machine_left(reason)
            case Release(shard):
                quarantine.release(self._folder, shard)
            case Quarantine():
                self._give_up(order)
            case _:
                pass

    def _give_up(self, order: Quarantine) -> None:
        """Unless a worker that died after its commit, or another driver, has done it."""
        if storage.exists(self._folder.commit_url(order.shard)):
            self._schedule.found_committed([order.shard])
            return
        if order.shard in self._unread:
            with storage.patience(PATIENCE_S):
                storage.exists(order.url)  # where even that fails, the store is to blame, no shard
        self._monitor.noted(order, time.monotonic())
        quarantine.quarantine(
            self._folder,
            order.shard,
            order.url,
            order.reason,
            order.traceback or None,
            order.attempts,
        )

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
