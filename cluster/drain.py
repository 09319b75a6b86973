"""The orderly end after a first signal: finish what is in flight, or release it in time."""

from __future__ import annotations

from cluster.scheduling.schedule import Schedule
from cluster.watching.monitor import Monitor
from cluster.watching.observer import Draining, Released


class Drain:
    """Begins when a signal was heard. `timeout_s`: after so long, shards still in flight are
    released to the next run, as where a machine is taken away some time after the signal; None:
    they are finished however long it takes.
    """

    def __init__(self, schedule: Schedule, monitor: Monitor, timeout_s: float | None) -> None:
        self._schedule = schedule
        self._monitor = monitor
        self._timeout_s = timeout_s
        self._begun_at: float | None = None
        self._released = False

    def tick(self, signal: str, now: float) -> None:
        """Go on with it; `signal` is the name of the first one, "" before."""
        flying = self._schedule.counts.in_flight
        if not signal or self._released:
            return
        if self._begun_at is None:
            self._begun_at = now
            self._schedule.drain()
            self._monitor.noted(Draining(signal, flying, self._timeout_s), now)
        elif self._timeout_s is not None and now - self._begun_at >= self._timeout_s:
            self._released = True
            self._schedule.release()
            self._monitor.noted(Released(flying), now)
