"""The two engines behind one door; each loads its libraries only when it is opened."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from cluster.pools.protocol import Pool, WorkerBody, WorkerFactory
from cluster.watching.observer import Observer
from cluster.watching.tally import Tally
from lib.problems import ConfigProblem
from pipelines.config import Execution, RunConfig

_RAY_NOISE = "A worker died or was killed while executing a task|Raylet is terminated"
"""Ray prints a paragraph for every death, whatever its options; the run says it in one line."""


def shard_worker(config_json: str, fingerprint: str) -> WorkerBody:
    """The worker that edits images; imports torch, so only where the work is done."""
    from pipelines.worker import ShardWorker

    return ShardWorker(config_json, fingerprint)


def check_engine(execution: Execution) -> None:
    """Refuse what an engine cannot do.

    Raises:
        ConfigProblem: says what to change.

    """
    if execution.engine == "local" and execution.workers != 1:
        raise ConfigProblem(
            "execution.workers: expected 1 with engine local, which works in this one process, got"
            f" {execution.workers}; use --engine ray for more"
        )
    if execution.engine == "ray" and execution.device == "cuda" and not execution.gpus_per_worker:
        raise ConfigProblem(
            "execution.gpus_per_worker: expected more than 0 with engine ray and device cuda,"
            " got 0; Ray gives a worker no GPU unless it asks for one"
        )


@contextmanager
def open_pool(
    config: RunConfig, fingerprint: str, address: str | None, factory: WorkerFactory, shards: int
) -> Iterator[Pool]:
    """A pool for at most `shards` workers; the caller closes it.

    Raises:
        ClusterProblem: Ray cannot be reached, or has no room.

    """
    execution = config.execution
    arguments = (factory, config.model_dump_json(), fingerprint, config.output.folder)
    if execution.engine == "local":
        from cluster.pools.local_pool import LocalPool

        if "torch" not in sys.modules:
            os.environ["OMP_NUM_THREADS"] = str(config.model.cpu_threads)
        yield LocalPool(*arguments)
        return
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", _RAY_NOISE)  # read when ray is imported
    from cluster.pools.ray_pool import RayPool
    from cluster.pools.ray_session import Resources, ray_session

    resources = Resources(execution.gpus_per_worker, config.model.cpu_threads)
    with ray_session(address, min(execution.workers, shards), resources) as session:
        environment = dict(session.import_path)
        if not execution.gpus_per_worker:
            environment["CUDA_VISIBLE_DEVICES"] = ""  # else all workers of a machine share GPU 0
        yield RayPool(*arguments, resources, environment)


def observers(execution: Execution, fingerprint: str, tally: Tally) -> list[Observer]:
    """Who else hears of a run while its pool is open: with Ray, its metrics."""
    if execution.engine == "local":
        return []
    from cluster.watching.ray_metrics import RayMetrics

    return [RayMetrics(fingerprint[:16], tally)]
