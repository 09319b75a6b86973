"""The orderly end after a first signal: finish what is in flight, or release it in time."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.events import EventLog
from cluster.scheduling.schedule import Schedule


class Drain:
    """Begins when a signal was heard. `timeout_s`: after so long, shards still in flight are
    released to the next run, as where a machine is taken away some time after the signal; None:
    they are finished however long it takes.
    """

    def __init__(self, schedule: Schedule, events: EventLog, timeout_s: float | None) -> None:
        self._schedule = schedule
        self._events = events
        self._timeout_s = timeout_s
        self._begun_at: float | None = None
        self._released = False

    def tick(self, signal: str, now: float) -> Iterator[str]:
        """What is to be said; `signal` is the name of the first one, "" before."""
        flying = self._schedule.counts.in_flight
        if not signal or self._released:
            return
        if self._begun_at is None:
            self._begun_at = now
            self._schedule.drain()
            self._events.add("draining", signal=signal, in_flight=flying)
            limit = "" if self._timeout_s is None else f" for up to {self._timeout_s:g} s"
            yield (
                f"{signal}: finishing the {flying} shards in flight{limit}, starting no more; once"
                " more stops at once"
            )
        elif self._timeout_s is not None and now - self._begun_at >= self._timeout_s:
            self._released = True
            self._schedule.release()
            self._events.add("released", in_flight=flying)
            yield f"releasing the {flying} shards still in flight; the next run begins them again"
