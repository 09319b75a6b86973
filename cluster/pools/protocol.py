"""What the driver loop asks of a set of workers and is told by it, the same with and without Ray.

A worker is one incarnation of a process that holds the model; its number is never used again, so a
late message of a dead worker cannot be taken for one of its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.scheduling.verdicts import Raised
from lib.problems import Problem
from lib.receipts import ShardReport, ShardTask


class ClusterProblem(Problem):
    """The cluster cannot be reached, or cannot hold the workers that were asked for."""


class ClusterLostError(RuntimeError):
    """The cluster went away under the run; what was committed stays."""


class WorkerBody(Protocol):
    """What a worker does; `pipelines.worker.ShardWorker` is the one that matters."""

    def run(self, task: ShardTask) -> ShardReport:
        """Bring one shard to a committed state; two calls at once overlap."""

    def images_done(self) -> int:
        """A number that grows as images are worked on, callable from another thread at any time."""

    def cancel(self, shard: str) -> None:
        """Let a `run` of this shard raise ShardCancelled at its next image, from another thread;
        one that is not there, or nearly done, is fine.
        """


WorkerFactory = Callable[[str, str], WorkerBody]
"""(config as JSON, fingerprint) -> worker; may take long, may raise; is pickled for Ray."""


@dataclass(frozen=True, slots=True)
class WorkerPlaced:
    """A process for the worker is up; it now loads the model."""

    worker: int
    host: str
    pid: int
    node: str = ""
    """What tells machines apart, to be given back in `Pool.avoid`."""


@dataclass(frozen=True, slots=True)
class WorkerReady:
    """The model is loaded; the worker may be given shards."""

    worker: int
    host: str
    pid: int


@dataclass(frozen=True, slots=True)
class WorkerFailedToStart:
    """The worker is gone before it was ready."""

    worker: int
    raised: Raised
    node_lost: bool = False


@dataclass(frozen=True, slots=True)
class ShardStarted:
    """The worker was alive and has begun the shard: only from here on an attempt counts."""

    worker: int
    task: ShardTask


@dataclass(frozen=True, slots=True)
class ShardFinished:
    """The shard is committed, by this worker or by another writer."""

    worker: int
    task: ShardTask
    report: ShardReport


@dataclass(frozen=True, slots=True)
class ShardRaised:
    """An error left the shard; the worker lives."""

    worker: int
    task: ShardTask
    raised: Raised


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """A ready worker is gone, with all it was given."""

    worker: int
    reason: str
    node_lost: bool
    """Its machine went away (preempted, removed): nobody's fault."""


Event = (
    WorkerPlaced
    | WorkerReady
    | WorkerFailedToStart
    | ShardStarted
    | ShardFinished
    | ShardRaised
    | WorkerDied
)


class Pool(Protocol):
    """Workers by number. Called from one thread only."""

    def start(self, worker: int) -> None:
        """Begin to start a worker; WorkerReady or WorkerFailedToStart follows."""

    def submit(self, worker: int, task: ShardTask) -> None:
        """Give a ready worker a shard; ShardFinished, ShardRaised or WorkerDied follows."""

    def cancel(self, worker: int, shard: str) -> None:
        """Ask a worker to stop a shard; ShardRaised or ShardFinished follows as without."""

    def avoid(self, node: str) -> int:
        """Place no more workers on a machine; how many others could hold one now."""

    def poll(self, timeout_s: float) -> Sequence[Event]:
        """What happened, in order; waits at most so long for the first event."""

    def heartbeats(self) -> Mapping[int, int]:
        """The last known images_done of every ready worker."""

    def kill(self, worker: int, reason: str) -> None:
        """End a worker at once; WorkerDied or WorkerFailedToStart follows unless it is gone."""

    def let_go(self, worker: int) -> None:
        """End a worker that holds nothing; no event follows."""

    def close(self) -> bool:
        """End all workers; False if threads of this process are still busy with them."""
