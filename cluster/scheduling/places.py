"""Where workers cannot start: after a few failures in a row a machine is avoided, or one place on
it stays empty.
"""

from __future__ import annotations

from collections import Counter

from cluster.scheduling.fleet import Fleet, Worker
from cluster.scheduling.orders import EXIT_FAILED, AvoidMachine, Stop


class Places:
    """Counts failures by machine, by whatever name the pool gives it, and by slot of the fleet."""

    def __init__(self, fleet: Fleet, max_failures: int) -> None:
        self._fleet = fleet
        self._max_failures = max_failures
        self._by_machine: Counter[str] = Counter()

    def failed(self, worker: Worker, reason: str) -> AvoidMachine | Stop | None:
        """A worker could not start. The machine is to blame if others failed there too, else the
        worker's own place, such as one card of many.
        """
        slot, node = worker.slot, worker.node
        self._by_machine[node] += bool(node)
        if self._by_machine[node] == self._max_failures:
            slot.failures = 0
            return AvoidMachine(node, reason)
        slot.failures += 1
        if slot.failures < self._max_failures or not self._fleet.retire(slot):
            return None
        return Stop(
            EXIT_FAILED,
            f"no worker stays up, {slot.failures} tries in each of {len(self._fleet.slots)} places:"
            f" {reason}",
        )

    def worked(self, worker: Worker) -> None:
        """A worker finished a shard."""
        worker.slot.failures = 0
        if self._by_machine[worker.node] < self._max_failures:
            self._by_machine[worker.node] = 0
