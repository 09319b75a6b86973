"""The log of a driver run: a line a shard at INFO, a warning for every failure.

It is written by the driver from receipts, because what a worker logs stays on its machine.
"""

from __future__ import annotations

import logging
from collections import deque
from datetime import UTC, datetime

from cluster.pools.protocol import (
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerReady,
)
from cluster.scheduling.orders import AvoidMachine, Counts, KillWorker, Quarantine
from cluster.watching.observer import Noted
from lib.receipts import ShardReport

_MOST_TROUBLE = 5
_MOST_CHARACTERS = 300
_log = logging.getLogger(__name__)


class ShardLog:
    """See `cluster.watching.observer.Observer`."""

    def __init__(self) -> None:
        self._begun_at: dict[tuple[int, str], float] = {}
        """(worker, shard) -> when, of those in flight."""
        self._trouble: deque[str] = deque(maxlen=_MOST_TROUBLE)

    @property
    def trouble(self) -> tuple[str, ...]:
        """The last few warnings, each with its time."""
        return tuple(self._trouble)

    def noted(self, fact: Noted, now: float) -> None:
        """One line, or none."""
        match fact:
            case WorkerReady(worker, host, pid):
                _log.info("worker %d is ready on %s, process %d", worker, host, pid)
            case ShardStarted(worker, task):
                self._begun_at[worker, task.shard] = now
            case ShardFinished(worker, task, report):
                seconds = now - self._begun_at.pop((worker, task.shard), now)
                _log.info("%s", shard_sentence(worker, report, seconds))
            case ShardRaised(worker, task, raised) if raised.verdict == "cancelled":
                self._begun_at.pop((worker, task.shard), None)
                _log.info("worker %d has stopped shard %s", worker, task.shard)
            case ShardRaised(worker, task, raised):
                self._begun_at.pop((worker, task.shard), None)
                self._warn(f"shard {task.shard}, attempt {task.attempt}: {raised}")
            case KillWorker(worker, reason):
                self._warn(f"worker {worker} is ended: {reason}")
            case WorkerFailedToStart(worker, raised):
                self._warn(f"worker {worker} could not start: {raised}")
            case WorkerDied(worker, reason):
                for key in [key for key in self._begun_at if key[0] == worker]:
                    del self._begun_at[key]
                self._warn(f"worker {worker} died: {reason}")
            case AvoidMachine(node, reason):
                self._warn(f"no more workers are placed on machine {node}: {reason}")
            case Quarantine(shard, _, reason):
                self._warn(f"shard {shard} is given up: {reason}")

    def tick(self, counts: Counts, now: float) -> None:
        """Nothing is logged by the clock alone."""

    def _warn(self, sentence: str) -> None:
        _log.warning("%s", sentence)
        time = datetime.now(UTC).isoformat(sep=" ", timespec="seconds").removesuffix("+00:00")
        short = " ".join(sentence.split())[:_MOST_CHARACTERS]
        self._trouble.append(f"{time} {short}")


def shard_sentence(worker: int, report: ShardReport, seconds: float) -> str:
    """What became of a shard; `seconds` from its start to its receipt."""
    parts = [
        f"shard {report.shard}, attempt {report.attempt}, worker {worker} on {report.host}:"
        f" {report.n_in} images, {report.n_err} errors, {report.n_edits} edits in {seconds:.1f} s,"
        f" model {report.model_s:.1f} s, wait {report.wait_share:.1%}"
    ]
    if report.oom_batch is not None:
        parts.append(f"memory ran out, batch reduced to {report.oom_batch}")
    if report.outcome == "lost_race":
        parts.append("another writer had committed it first")
    return "; ".join(parts)
