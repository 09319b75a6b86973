"""What a driver tells those who watch it, and what they must be able to hear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.pools.protocol import Event
from cluster.scheduling.orders import Counts, Order


@dataclass(frozen=True, slots=True)
class Draining:
    """A signal came: no more shards are begun."""

    signal: str
    in_flight: int
    timeout_s: float | None
    """After which those in flight are released."""


@dataclass(frozen=True, slots=True)
class Released:
    """Shards in flight are stopped and left for the next run."""

    in_flight: int


Noted = Event | Order | Draining | Released
"""What a pool reports, what the schedule orders, and how the run ends early."""


class Observer(Protocol):
    """Hears everything; times are monotonic seconds. An unknown kind of fact is passed over."""

    def noted(self, fact: Noted, now: float) -> None:
        """Something happened."""

    def tick(self, counts: Counts, now: float) -> None:
        """Time passes: called at least once a second with where the shards are."""
