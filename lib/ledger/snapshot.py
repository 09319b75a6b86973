"""Where every shard of a run stood at one moment: status, summary and verification count by it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """Shards of a run by state."""

    inputs: int
    committed: int
    quarantined: int

    @property
    def pending(self) -> int:
        """Neither committed nor quarantined."""
        return self.inputs - self.committed - self.quarantined


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the listings of a run's folder said, taken by `RunFolder.snapshot`."""

    inputs: frozenset[str]
    committed: frozenset[str]
    """All that have a commit, inputs or not."""
    given_up: frozenset[str]
    """All that have a quarantine record, committed meanwhile or not."""

    @property
    def quarantined(self) -> frozenset[str]:
        """Given up and not done by a late worker after all."""
        return self.given_up - self.committed

    @property
    def pending(self) -> frozenset[str]:
        """Inputs that are in no final state."""
        return self.inputs - self.committed - self.given_up

    @property
    def counts(self) -> Counts:
        """The inputs by state."""
        return Counts(
            len(self.inputs),
            len(self.committed & self.inputs),
            len(self.quarantined & self.inputs),
        )
