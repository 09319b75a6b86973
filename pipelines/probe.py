"""A few images through a run's whole pipeline, in this process and on this device, to measure what
an image costs. All of it happens in a throw-away folder; the run's own is not looked at.

torch is imported when a probe begins, as the worker would import it: that is a part of its start.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lib.files import storage
from lib.files.samples import ShardDamage
from lib.ledger.run_folder import RunFolder
from lib.out_of_memory import MemoryExhaustedError
from lib.problems import ConfigProblem
from lib.process_memory import peak_bytes
from pipelines.config import RunConfig
from pipelines.image_cost import ImageCost
from pipelines.inputs import ShardInput
from pipelines.output_sizes import MeasuredOutput
from pipelines.probe_input import ProbeInput, lend_latents, probe_input
from pipelines.probe_output import first_error, measured_output

if TYPE_CHECKING:
    from lib.receipts import ShardReport, ShardTask
    from pipelines.worker import ShardWorker


@dataclass(slots=True)
class ProbeProgress:
    """Where a probe is, for whoever draws it in another thread."""

    stage: str = "loading the model"
    steps: Callable[[], int] = field(default=lambda: 0)
    """Grows with every stage of every image."""
    expected: float = 0.0
    """What it will be at the end; 0 while that is not known."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was measured. Seconds and bytes an image are of the images that came through."""

    shard: str
    """Whose first images they are."""
    device: str
    on_gpu: bool
    images: int
    failed: int
    """Images that ended in errors."""
    batch: int
    """Images of the largest batch."""
    run_batch: int
    """`invert.batch_size`."""
    smaller_batch: int | None
    """Of images or edits, where memory did not suffice for the config's."""
    start_s: float
    first_batch_s: float
    """An image of the first batch, which is not part of the rest: kernels are chosen there."""
    model_s: float
    waited_s: float
    """An image; part of `model_s`: the model was held, but had no image."""
    read_s: float
    """Of the whole shard."""
    write_s: float
    start_cpu_s: float
    """Of the start, on all cores."""
    cpu_s: float
    """An image, of all threads of this process."""
    decode_cpu_s: float
    """An image; part of `cpu_s`, as is the next."""
    encode_cpu_s: float
    """An image: what else the threads beside the model's did."""
    peak_bytes: int
    """Of this process."""
    peak_device_bytes: int | None
    """Held by torch; None on a CPU."""
    output: MeasuredOutput

    @property
    def cost(self) -> ImageCost:
        """What it says of a run."""
        return ImageCost(
            source="probe",
            measured=f"by a probe of {self.images} images of {self.shard}, on {self.device}",
            on_gpu=self.on_gpu,
            images=self.images,
            model_s=self.model_s,
            start_s=self.start_s,
            read_s=self.read_s,
            write_s=self.write_s,
            encode_s=self.encode_cpu_s,
        )


def probe(
    config: RunConfig,
    claim: Mapping[str, Any],
    inputs: Sequence[ShardInput],
    images: int,
    progress: ProbeProgress,
) -> Probe:
    """Run the first `images` of the first readable shard, the first batch of them twice; `claim` is
    that of `pipelines.run_claim`.

    Raises:
        ModelProblem, ConfigProblem: as a worker's start; or no shard can be read, no image comes
            through, or the model does not fit into the device's memory.
        OSError: a store does not answer.
    """
    found = probe_input(config, inputs, images)
    with TemporaryDirectory(prefix="deltah-probe-") as root:
        folder = RunFolder(root)
        folder.open_run(claim)
        update: dict[str, object] = {"output": config.output.model_copy(update={"folder": root})}
        lent = None
        if config.invert.latents is not None:
            lent = _Lending(RunFolder(config.invert.latents), RunFolder(folder.url("lent")))
            latents = {"latents": lent.target.root}
            update["invert"] = config.invert.model_copy(update=latents)
        here = config.model_copy(update=update)
        return _measured(here, str(claim["fingerprint"]), found, lent, progress)


@dataclass(frozen=True, slots=True)
class _Lending:
    """Latents that another run has stored, for the shards that a probe cuts."""

    source: RunFolder
    target: RunFolder

    def lend(self, found: ProbeInput, tasks: Sequence[ShardTask]) -> None:
        from pipelines.inversions import read_latents

        try:
            read_latents(self.source, found.shard, found.sha256)
        except ShardDamage as error:
            raise ConfigProblem(f"invert.latents: {error}") from error
        for task in tasks:
            lend_latents(self.source, self.target, found, task)


def _measured(
    config: RunConfig,
    fingerprint: str,
    found: ProbeInput,
    lent: _Lending | None,
    progress: ProbeProgress,
) -> Probe:
    folder, count = RunFolder(config.output.folder), len(found.samples)
    batch = min(count, config.invert.batch_size)
    first = found.write(folder, batch, f"{found.shard}-first")
    rest = found.write(folder, count, found.shard)
    started, before_cpu_s = time.perf_counter(), time.process_time()
    if "torch" not in sys.modules:
        os.environ["OMP_NUM_THREADS"] = str(config.model.cpu_threads)
    from pipelines.engine import chosen_device
    from pipelines.model_source import open_model
    from pipelines.probe_meters import (
        ThreadSeconds,
        decoding_s,
        device_name,
        device_peak_bytes,
    )
    from pipelines.worker import ShardWorker

    device = chosen_device(config.execution.device)
    threads = ThreadSeconds()
    worker = ShardWorker(config.model_dump_json(), fingerprint)
    start_s, start_cpu_s = time.perf_counter() - started, time.process_time() - before_cpu_s
    progress.steps = worker.images_done
    if lent is not None:
        lent.lend(found, (first, rest))
    progress.stage = f"first batch of {found.shard}, not measured"
    warm = _run(worker, first, folder)
    progress.expected = worker.images_done() * (1 + count / batch)
    progress.stage = f"measuring {count} images of {found.shard}"
    before_s, before_cpu_s = threads.read(), time.process_time()
    report = _run(worker, rest, folder)
    codecs_s, cpu_s = threads.read() - before_s, time.process_time() - before_cpu_s
    image_size = open_model(config.model).image_size
    decode_s = decoding_s(config, found.samples, image_size)
    ok = report.n_ok
    return Probe(
        shard=found.shard,
        device=device_name(device, config.model.cpu_threads),
        on_gpu=device.type == "cuda",
        images=ok,
        failed=report.n_err,
        batch=batch,
        run_batch=config.invert.batch_size,
        smaller_batch=report.oom_batch,
        start_s=start_s,
        first_batch_s=warm.model_s / warm.n_ok,
        model_s=report.model_s / ok,
        waited_s=report.wait_s / ok,
        read_s=found.read_s,
        write_s=report.write_s / ok,
        start_cpu_s=start_cpu_s,
        cpu_s=cpu_s / ok,
        decode_cpu_s=decode_s / ok,
        encode_cpu_s=max(0.0, codecs_s - decode_s) / ok,
        peak_bytes=peak_bytes(),
        peak_device_bytes=device_peak_bytes(device),
        output=measured_output(folder, rest.shard, ok, coreset=config.pipeline == "region_model"),
    )


def _run(worker: ShardWorker, task: ShardTask, folder: RunFolder) -> ShardReport:
    try:
        report = worker.run(task)
    except MemoryExhaustedError as error:
        raise ConfigProblem(
            f"--probe: the device's memory does not suffice: {storage.redact(str(error))}; expected"
            " room for the model and one image"
        ) from error
    if not report.n_ok:
        raise ConfigProblem(
            f"--probe: expected images that can be done, but none of the first {report.n_in} of"
            f" shard {task.shard} can; the first: {first_error(folder, task.shard)}"
        )
    return report
