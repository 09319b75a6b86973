"""What a driver tells those who watch it, and what they must be able to hear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.pools.protocol import Event
from cluster.scheduling.orders import Counts, KillWorker, Quarantine


@dataclass(frozen=True, slots=True)
class Draining:
    """A signal came: no more shards are begun."""

    signal: str
    in_flight: int


Noted = Event | KillWorker | Quarantine | Draining
"""What a pool reports, and what the driver decides: a worker to be ended, a shard given up."""


class Observer(Protocol):
    """Hears everything; times are monotonic seconds. An unknown kind of fact is passed over."""

    def noted(self, fact: Noted, now: float) -> None:
        """Something happened."""

    def tick(self, counts: Counts, now: float) -> None:
        """Time passes: called at least once a second with where the shards are."""
