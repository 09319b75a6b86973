"""All that `deltah plan` says, in one tree of plain values: printed as tables, or as JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from lib.files import storage
from lib.files.store_backends import local_path
from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.image_cost import ImageCost
from pipelines.input_sizes import InputSizes
from pipelines.inputs import ShardInput
from pipelines.memory_budget import stated_budget
from pipelines.output_sizes import OutputSizes
from pipelines.plan_counts import Plan
from pipelines.plan_notes import notes
from pipelines.probe import Probe
from pipelines.request_counts import Requests, ShardTraffic, run_requests
from pipelines.run_estimate import RunEstimate, run_estimate


@dataclass(frozen=True, slots=True)
class ShardStates:
    """Of the input shards."""

    inputs: int
    committed: int
    quarantined: int
    pending: int
    missing: int
    """Local paths at which there is no file."""


@dataclass(frozen=True, slots=True)
class PlanReport:
    """The plan of a run."""

    shards: ShardStates
    images_to_do: int
    """Estimated, in the shards that are pending."""
    counts: Plan
    network_evaluations: int
    """An image."""
    cost: ImageCost | None
    """None where nothing has been measured."""
    probe: Probe | None
    estimate: RunEstimate | None
    """Of the shards that are pending; None without a cost."""
    gpus_a_worker: float
    """0 where workers are counted, not GPUs."""
    output: OutputSizes
    """Of the whole run: by the probe, where there is one."""
    requests: Requests
    """Of the shards that are pending, at `workers`, if all of it lies in S3."""
    in_store: bool
    """Whether any of it does."""
    memory: str
    """What a worker takes at most, in a sentence; "" where no shard can be looked at."""
    engine: str
    workers: int
    output_folder: str
    fingerprint: str
    notes: tuple[str, ...]


def plan_report(
    config: RunConfig,
    counts: Plan,
    inputs: Sequence[ShardInput],
    sizes: InputSizes,
    states: ShardStates,
    fingerprint: str,
    *,
    pending: Sequence[str],
    events_cost: ImageCost | None,
    probe: Probe | None,
    others: Collection[int],
) -> PlanReport:
    """Put it together; `others` are further numbers of workers."""
    cost = events_cost if probe is None else probe.cost
    images = sizes.images(pending)
    workers = config.execution.workers
    estimate = None if cost is None else run_estimate(images, cost, workers, others)
    output = counts.output
    if probe is not None:
        output = probe.output.sizes(counts.output, counts.shards, counts.images)
    elif cost is not None and cost.image_bytes is not None:
        output = replace(output, images=round(cost.image_bytes * counts.images))
    gpus = _gpus_a_worker(config, cost)
    report = PlanReport(
        shards=states,
        images_to_do=round(sum(images)),
        counts=counts,
        network_evaluations=counts.evaluations,
        cost=cost,
        probe=probe,
        estimate=estimate,
        gpus_a_worker=gpus,
        output=output,
        requests=_requests(config, sizes, output, counts, len(pending), estimate),
        in_store=_in_store(config, inputs),
        memory=stated_budget(config, inputs),
        engine=config.execution.engine,
        workers=workers,
        output_folder=storage.redact(RunFolder(config.output.folder).root),
        fingerprint=fingerprint,
        notes=(),
    )
    return replace(report, notes=tuple(notes(config, report)))


def _gpus_a_worker(config: RunConfig, cost: ImageCost | None) -> float:
    execution = config.execution
    asked = execution.gpus_per_worker if execution.engine == "ray" else 0.0
    if cost is None or cost.on_gpu is None:
        return asked
    return (asked or 1.0) if cost.on_gpu else 0.0


def _requests(
    config: RunConfig,
    sizes: InputSizes,
    output: OutputSizes,
    counts: Plan,
    pending: int,
    estimate: RunEstimate | None,
) -> Requests:
    files = output.of_a_shard(counts.shards)
    wall_s = 0.0
    if estimate is not None:
        wall_s = next(at.wall_s for at in estimate.at if at.workers == config.execution.workers)
    latents = 1.0 if config.invert.latents is not None else 0.0  # one range, whatever its size
    return run_requests(pending, ShardTraffic(sizes.mean_bytes, files, latents), driver_s=wall_s)


def _in_store(config: RunConfig, inputs: Sequence[ShardInput]) -> bool:
    urls = [config.output.folder, *(shard.url for shard in inputs)]
    return any(local_path(url) is None for url in urls)
