"""What the schedule decides: its limits, the orders it gives, and why a run may end early."""

from __future__ import annotations

from dataclasses import dataclass

from lib.receipts import ShardTask

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_QUARANTINED, EXIT_BUDGET = range(5)
"""All done; failed; bad config or usage; done but for quarantined shards; out of error budget."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The limits of a run."""

    workers: int
    max_attempts: int = 3
    max_error_rate: float = 1.0
    """Of at least 100 samples, and of at least 20 shards."""
    stall_timeout_s: float = 600.0
    in_flight: int = 2
    """Shards a worker holds at once: one computes while the next is read."""
    max_start_failures: int = 3
    """In a row, of workers in the same slot; the slot then stays empty."""
    start_timeout_s: float = 1800.0
    """From the process being up to the model being loaded."""
    retry_pause_s: float = 1.0
    """After the first raised error; twice, three times as long after the next ones."""
    vanished_pause_s: float = 5.0
    """Before the one more look at a shard that was not there."""


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker with this number."""

    worker: int


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker."""

    worker: int
    reason: str


@dataclass(frozen=True, slots=True)
class Submit:
    """Give a shard to a worker."""

    worker: int
    task: ShardTask


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Give a shard up."""

    shard: str
    url: str
    reason: str
    traceback: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Release:
    """A shard that was given up was committed after all."""

    shard: str


Order = StartWorker | KillWorker | Submit | Quarantine | Release


@dataclass(frozen=True, slots=True)
class Stop:
    """Why the run ends before its shards do."""

    exit_code: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Where the shards of a schedule are; the last four add up to `total`."""

    total: int
    done: int
    quarantined: int
    in_flight: int
    waiting: int
