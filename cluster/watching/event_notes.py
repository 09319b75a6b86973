"""Every fact of a driver run as a line of its events file."""

from __future__ import annotations

from cluster.events import EventLog
from cluster.pools.protocol import (
    ShardFinished,
    ShardRaised,
    ShardStarted,
    WorkerDied,
    WorkerFailedToStart,
    WorkerPlaced,
    WorkerReady,
)
from cluster.scheduling.orders import AvoidMachine, Cancel, Counts, KillWorker, LetGo, Quarantine
from cluster.watching.observer import Draining, Noted, Released
from cluster.watching.tally import Tally


class EventNotes:
    """See `cluster.watching.observer.Observer`; must hear a fact before `tally` does."""

    def __init__(self, log: EventLog, tally: Tally) -> None:
        self._log = log
        self._tally = tally

    def noted(self, fact: Noted, now: float) -> None:
        """One line."""
        add = self._log.add
        match fact:
            case WorkerPlaced(worker, host, pid, node):
                add("worker_placed", worker=worker, host=host, pid=pid, node=node)
            case WorkerReady(worker, host, pid):
                add("worker_ready", worker=worker, host=host, pid=pid)
            case KillWorker(worker, reason):
                add("worker_killed", worker=worker, reason=reason)
            case WorkerFailedToStart(worker, raised, node_lost):
                add(
                    "worker_died",
                    worker=worker,
                    reason=f"could not start: {raised}",
                    node_lost=node_lost,
                    cause=self._tally.cause(fact),
                )
            case WorkerDied(worker, reason, node_lost):
                cause = self._tally.cause(fact)
                add("worker_died", worker=worker, reason=reason, node_lost=node_lost, cause=cause)
            case ShardStarted(worker, task):
                add("shard_started", shard=task.shard, attempt=task.attempt, worker=worker)
            case ShardFinished(worker, _, report):
                add("shard_done", worker=worker, report=report, counts=self._tally.is_first(fact))
            case ShardRaised(worker, task, raised):
                add(
                    "shard_failed",
                    shard=task.shard,
                    attempt=task.attempt,
                    worker=worker,
                    error=str(raised),
                    verdict=raised.verdict,
                )
            case Quarantine(shard, _, reason, _, attempts):
                add("quarantined", shard=shard, reason=reason, attempts=attempts)
            case LetGo(worker):
                add("worker_let_go", worker=worker)
            case AvoidMachine(node, reason):
                add("machine_avoided", node=node, reason=reason)
            case Cancel(worker, shard):
                add("shard_cancelled", shard=shard, worker=worker)
            case Draining(signal, in_flight):
                add("draining", signal=signal, in_flight=in_flight)
            case Released(in_flight):
                add("released", in_flight=in_flight)

    def tick(self, counts: Counts, now: float) -> None:
        """Nothing is noted by the clock alone."""
