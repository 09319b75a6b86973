"""The tables of `deltah plan`: what will be done, what it costs, how long it takes."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from cluster.views.tables import print_rows
from pipelines.image_cost import ImageCost
from pipelines.number_texts import duration, percent, size, three
from pipelines.output_sizes import OutputSizes
from pipelines.plan_report import PlanReport
from pipelines.probe import Probe
from pipelines.run_estimate import PREEMPTED_AN_HOUR, RunEstimate

Rows = Iterator[tuple[str, str]]


def print_plan(report: PlanReport, missing: str) -> None:
    """All tables, and the notes below them; `missing` is a shard that is not there."""
    print_rows(_done(report, missing), "what will be done")
    print_rows(_costs(report), "what it costs")
    console = Console()
    if report.estimate is not None:
        console.print(_times(report.estimate, report.gpus_a_worker))
    if report.memory:
        console.print(report.memory, markup=False, highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


def _done(report: PlanReport, missing: str) -> Rows:
    shards = report.shards
    yield "shards", f"{shards.inputs:,}"
    if shards.missing:
        yield "no file there", f"{shards.missing:,}, such as {missing}"
    yield "done", f"{shards.committed:,}"
    yield "quarantined", f"{shards.quarantined:,}"
    yield "to do", f"{shards.pending:,}"
    yield from report.counts.rows()
    yield "engine", f"{report.engine}, {report.workers} workers"
    yield "output folder", report.output_folder
    yield "fingerprint", report.fingerprint[:16]


def _costs(report: PlanReport) -> Rows:
    if report.cost is not None:
        yield from _image(report.cost)
    if report.probe is not None:
        yield from _probe(report.probe)
    if report.estimate is not None:
        unit = "GPU-hours" if report.gpus_a_worker else "worker-hours"
        hours = report.estimate.work_h * (report.gpus_a_worker or 1.0)
        yield f"{unit} for the {report.images_to_do:,} images to do", three(hours)
    yield "output (estimate)", _sizes(report.output)
    if report.in_store:
        found = report.requests
        periodic = "" if report.estimate else ", without those that a driver sends while it waits"
        yield (
            "requests to the store, if S3",
            f"{found.get:,} GET, {found.head:,} HEAD, {found.put:,} PUT, {found.list:,} LIST"
            f"{periodic}",
        )


def _image(cost: ImageCost) -> Rows:
    yield "measured", cost.measured
    yield "an image holds the model for", _seconds(cost.model_s)
    yield "until a worker is ready", duration(cost.start_s)


def _probe(probe: Probe) -> Rows:
    yield "of the first batch, an image", _seconds(probe.first_batch_s)
    yield (
        "CPU an image",
        f"{_seconds(probe.cpu_s)}, {_seconds(probe.decode_cpu_s)} of it to decode and"
        f" {_seconds(probe.encode_cpu_s)} to encode: {three(probe.cpu_s / probe.model_s)} cores",
    )
    device = probe.peak_device_bytes
    yield (
        "memory at the peak",
        f"{size(probe.peak_bytes)} of the process"
        + ("" if device is None else f", {size(device)} of the GPU held by torch"),
    )


def _seconds(value: float) -> str:
    """Milliseconds below one."""
    return duration(value) if value >= 1 else f"{three(1000 * value)} ms"


def _sizes(output: OutputSizes) -> str:
    parts = {
        "images": output.images,
        "directions": output.directions,
        "statistics": output.statistics,
        "latents": output.latents,
        "commits": output.commits,
        "manifest": output.manifest,
    }
    shares = ", ".join(f"{name} {size(value)}" for name, value in parts.items() if value)
    return f"{size(output.total)}: {shares}"


def _times(estimate: RunEstimate, gpus: float) -> Table:
    table = Table(
        title="how long the shards to do take",
        caption=f"a shard takes {duration(estimate.shard_s)}; if {percent(PREEMPTED_AN_HOUR)} of"
        f" the workers are preempted an hour, {three(100 * estimate.redone)} % of the work is done"
        " twice",
        title_justify="left",
        caption_justify="left",
    )
    unit = "GPU-hours held" if gpus else "worker-hours held"
    for heading in ("workers", "wall time", unit, "efficiency"):
        table.add_column(heading, justify="right")
    for at in estimate.at:
        table.add_row(
            f"{at.workers:,}",
            duration(at.wall_s),
            three(at.held_h * (gpus or 1.0)),
            percent(at.efficiency),
        )
    return table
