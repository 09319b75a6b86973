"""Machines on which workers cannot start: after a few failures in a row nothing is placed there."""

from __future__ import annotations

from collections import Counter


class Machines:
    """Counts failures by machine, by whatever name the pool gives it."""

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._failures: Counter[str] = Counter()

    def failed(self, node: str) -> bool:
        """A worker could not start there; whether the machine is to be avoided from now on."""
        self._failures[node] += 1
        return self._failures[node] == self._max_failures

    def worked(self, node: str) -> None:
        """A worker finished a shard there."""
        if self._failures[node] < self._max_failures:
            self._failures[node] = 0
