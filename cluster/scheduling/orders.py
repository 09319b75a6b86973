"""What the schedule decides: its limits, the orders it gives, and why a run may end early."""

from __future__ import annotations

from dataclasses import dataclass

from lib.receipts import ShardTask

EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, EXIT_QUARANTINED, EXIT_BUDGET = range(5)
"""All done; failed; bad config or usage; done but for quarantined shards; out of error budget."""

DUPLICATE_ABOVE = 1.2
"""See `Rules.duplicate_above`; chosen with `python -m benchmarks.simulate`."""


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
    """In a row, of workers on the same machine, which is then avoided; or of workers in the same
    slot that no machine took, which then stays empty.
    """
    start_timeout_s: float = 1800.0
    """From the process being up to the model being loaded."""
    place_grace_s: float = 120.0
    """A worker for which no machine was found for so long may never come: the last shards are not
    kept for it.
    """
    retry_pause_s: float = 1.0
    """After the first raised error; twice, three times as long after the next ones."""
    vanished_pause_s: float = 5.0
    """Before the one more look at a shard that was not there."""
    duplicate_above: float = DUPLICATE_ABOVE
    """When nothing is left to begin, an idle worker takes a shard that another one is expected to
    hold for more than so many typical shard times yet; 0 never does.
    """
    duplicate_least_s: float = 10.0
    """And for more than so many seconds."""
    spare_s: float = 30.0
    """When nothing is left to begin, workers that have been idle for so long are let go, but for
    one for each shard in flight.
    """


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
class LetGo:
    """A worker is not needed any more: its machine is free for others."""

    worker: int


@dataclass(frozen=True, slots=True)
class Submit:
    """Give a shard to a worker."""

    worker: int
    task: ShardTask


@dataclass(frozen=True, slots=True)
class Cancel:
    """Let a worker stop a shard: it is done elsewhere, or is left for the next run."""

    worker: int
    shard: str


@dataclass(frozen=True, slots=True)
class AvoidMachine:
    """Place no more workers on a machine."""

    node: str
    reason: str


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


Order = StartWorker | KillWorker | LetGo | Submit | Cancel | AvoidMachine | Quarantine | Release


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
