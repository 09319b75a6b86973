"""What a plan warns of: sentences with what to do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.config import RunConfig
from pipelines.number_texts import duration, percent
from pipelines.run_estimate import FEW_SHARDS_A_WORKER, LONG_SHARD_S, PREEMPTED_AN_HOUR

if TYPE_CHECKING:
    from pipelines.plan_report import PlanReport
    from pipelines.probe import Probe
    from pipelines.run_estimate import RunEstimate


def notes(config: RunConfig, report: PlanReport) -> Iterator[str]:
    """In the order of their weight."""
    if report.cost is None and report.images_to_do:
        yield (
            "nothing has been measured, so no time is estimated: `deltah plan CONFIG --probe 4`"
            " runs four images on this machine, on a worker's device at best"
        )
    if report.estimate is not None:
        yield from _of_shards(report, report.estimate)
    if report.probe is not None:
        yield from _of_probe(config, report.probe)


def _of_shards(report: PlanReport, estimate: RunEstimate) -> Iterator[str]:
    good = estimate.good_shard_images
    advice = f"; shards of about {good:,} images would be better" if good else ""
    pending, workers = report.shards.pending - report.shards.missing, report.workers
    if workers > 1 and pending < FEW_SHARDS_A_WORKER * workers:
        yield (
            f"{pending:,} shards for {workers:,} workers: a shard is the least that a worker can"
            f" take, so many stand idle while the last ones are done{advice}"
        )
    elif estimate.longest_shard_s > LONG_SHARD_S:
        redone = estimate.redone
        again = f"{percent(redone)} of all work" if redone < 1 else f"{redone:,.3g} times all work"
        yield (
            f"a shard takes up to {duration(estimate.longest_shard_s)}, and what a preempted worker"
            f" has done of one is done again: {again}, if {percent(PREEMPTED_AN_HOUR)} of the"
            f" workers are preempted an hour{advice}"
        )


def _of_probe(config: RunConfig, probe: Probe) -> Iterator[str]:
    execution = config.execution
    shared = execution.gpus_per_worker
    if execution.engine == "ray" and shared and not probe.on_gpu:
        yield (
            f"the config asks for {shared:g} GPUs a worker, and the probe saw none: the times are"
            " those of workers like this machine; probe on a machine with such a GPU"
        )
    if probe.on_gpu and 0 < shared < 1:
        yield (
            f"the probe had its GPU to itself, and {1 / shared:.3g} workers are to share one: each"
            " will be slower"
        )
    if probe.on_gpu and probe.batch < probe.run_batch:
        yield (
            f"the largest batch of the probe had {probe.batch} images, those of the run have"
            f" {probe.run_batch}, which costs a GPU less an image: probe at least {probe.run_batch}"
        )
    if probe.smaller_batch is not None:
        yield (
            f"memory sufficed for batches of {probe.smaller_batch} only: so will the run's workers"
            " find, at the price of a shard begun again"
        )
    if probe.failed:
        yield f"{probe.failed} of the probe's images ended in errors; the cost is of the others"
