"""The error budget: a wrong config should not burn a cluster before anyone looks."""

from __future__ import annotations

from cluster.scheduling.orders import Counts
from lib.receipts import ShardReport

_MIN_SAMPLES = 100
_MIN_SHARDS = 20


class ErrorBudget:
    """Holds the samples, and the shards, to one rate; both only once there are enough of them."""

    def __init__(self, max_error_rate: float) -> None:
        self._rate = max_error_rate
        self._samples = 0
        self._errors = 0

    def add(self, report: ShardReport) -> None:
        """Count a finished shard's samples."""
        self._samples += report.n_in
        self._errors += report.n_err

    def overdrawn(self, counts: Counts) -> str:
        """Why the run must stop, or ""."""
        limit = f"more than execution.max_error_rate {self._rate:g} allows"
        if self._samples >= _MIN_SAMPLES and self._errors > self._rate * self._samples:
            return (
                f"{self._errors} of {self._samples} samples ended in errors, {limit};"
                " their reasons are in errors/"
            )
        lost, ended = counts.quarantined, counts.quarantined + counts.done
        if ended >= _MIN_SHARDS and lost > self._rate * ended:
            return (
                f"{lost} of {ended} shards were given up, {limit}; their reasons are in quarantine/"
            )
        return ""
