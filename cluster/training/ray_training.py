"""A training on Ray Train: `TorchTrainer` starts the workers, sets up their process group, and
starts them anew when one is lost. Checkpoints are the training's own, so that it also goes on after
the driver or the whole cluster was lost.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path
from typing import Any

from cluster.pools.ray_session import Resources, ray_session
from lib.problems import Problem
from pipelines.inputs import ShardInput
from pipelines.training.config import TrainConfig

_SWITCHES = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}
"""The present Ray Train, whose workers stay in their folder; read when it is imported."""


class TrainingFailedError(Problem):
    """The workers ended with an error, or were lost more often than was allowed."""


def train_on_ray(
    config: TrainConfig, fingerprint: str, shards: tuple[ShardInput, ...], address: str | None
) -> None:
    """Until the training is done.

    Raises:
        ClusterProblem: the cluster cannot be reached or cannot hold the workers.
        TrainingFailedError: the training failed on its workers.
    """
    os.environ.update(_SWITCHES)
    execution, threads = config.execution, config.model.cpu_threads
    resources = Resources(execution.gpus_per_worker, threads)
    with ray_session(address, execution.workers, resources) as session:
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        logging.getLogger("ray.train").setLevel(logging.ERROR)
        gpus = execution.gpus_per_worker
        wanted: dict[str, float] = {"CPU": 0 if gpus else threads}
        if gpus:
            wanted["GPU"] = gpus
        environment = {**_SWITCHES, **session.import_path, "OMP_NUM_THREADS": str(threads)}
        with tempfile.TemporaryDirectory(prefix="deltah-train-") as scratch:
            trainer = TorchTrainer(
                _work,
                train_loop_config={
                    "config": config.model_dump_json(),
                    "fingerprint": fingerprint,
                    "shards": [(shard.name, shard.url) for shard in shards],
                    "try": os.path.basename(scratch),
                },
                torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
                scaling_config=ray.train.ScalingConfig(
                    num_workers=execution.workers,
                    use_gpu=gpus > 0,
                    resources_per_worker=wanted,
                ),
                run_config=_run_config(scratch, execution.max_failures, environment),
            )
            try:
                trainer.fit()
            except ray.train.TrainingFailedError as error:
                raise TrainingFailedError(_reason(error)) from error


def _run_config(scratch: str, max_failures: int, environment: dict[str, str]) -> Any:
    """Any: the annotations of Ray are those of its former release."""
    from ray import train

    library: Any = train
    return library.RunConfig(
        name="training",
        storage_path=scratch,
        failure_config=library.FailureConfig(max_failures=max_failures),
        worker_runtime_env={"env_vars": environment},
    )


def _work(order: dict[str, Any]) -> None:
    """What every worker does; only config, URLs and receipts cross to it."""
    import ray.train

    from pipelines.training.progress import ProgressFile
    from pipelines.training.training import Order, train
    from pipelines.training.world import Alone, DataParallel, World

    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    world: World = Alone()
    if workers > 1:
        world = DataParallel(rank, workers, context.get_local_rank())
    config = TrainConfig.model_validate_json(order["config"])
    base = config.execution.cache or tempfile.gettempdir()
    # Of this try alone: shards may have changed since the one before.
    cache = Path(base) / f"{order['try']}-{os.getppid()}"
    shards = tuple(ShardInput(name, url) for name, url in order["shards"])
    report = ProgressFile(config.output.folder) if rank == 0 else _silent
    train(Order(config, order["fingerprint"], shards, cache), world, report)


def _silent(_progress: object) -> None:
    """The first worker speaks for all."""


def _reason(error: BaseException) -> str:
    """The innermost sentence of a failure that Ray wraps several times."""
    failures = getattr(error, "worker_failures", None)
    causes = list(failures.values()) if failures else [error]
    lines = [line.strip() for line in str(causes[0]).splitlines() if line.strip()]
    return f"the training failed on its workers: {lines[-1] if lines else type(error).__name__}"
