"""Whether the model ever waits: `python -m benchmarks.engine [--shards 12] [--images 64]`.

The model sleeps for 20 ms an image, as one does that computes on a GPU; shards, decoding, encoding,
commits, driver and engines are real. Every run is a process of its own.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from benchmarks.engine_run import Measured, Order, again_s, config_of, in_process_of_its_own
from benchmarks.machine import describe
from pipelines.inputs import expand_inputs
from pipelines.memory_budget import largest_shard, memory_budget

SIDE = 256
CELLS = (("local", 1), ("ray", 1), ("ray", 2))


@dataclass(frozen=True, slots=True)
class Target:
    """What is held."""

    name: str
    value: float
    limit: float
    at_least: bool = False
    unit: str = ""

    def row(self) -> str:
        """As a line of the last table."""
        met = self.value >= self.limit if self.at_least else self.value <= self.limit
        sign = ">=" if self.at_least else "<="
        return (
            f"{self.name:44s}  {self.value:8.3f}{self.unit}  {sign} {self.limit:g}{self.unit}"
            f"  {'yes' if met else 'NO'}"
        )


def photograph(seed: int) -> Image.Image:
    """A picture whose JPEG is about as large as a photograph's: smooth colours, texture, grain."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (9, 9, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    texture = Image.fromarray(random.normal(0, 18, (SIDE // 4, SIDE // 4)).astype(np.float32))
    texture_HW = np.asarray(texture.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    grain_HW = texture_HW + random.normal(0, 4, (SIDE, SIDE))
    return Image.fromarray((smooth + grain_HW[..., None]).clip(0, 255).astype(np.uint8))


def write_shards(folder: Path, shards: int, images: int) -> tuple[str, ...]:
    """Tars of JPEG photographs."""
    paths = []
    for shard in range(shards):
        paths.append(folder / f"photographs-{shard:03d}.tar")
        with tarfile.open(paths[-1], "w") as archive:
            for image in range(images):
                file = io.BytesIO()
                photograph(shard * images + image).save(file, "JPEG", quality=90)
                entry = tarfile.TarInfo(f"{image:04d}.jpg")
                entry.size = file.tell()
                file.seek(0)
                archive.addfile(entry, file)
    return tuple(map(str, paths))


def write_checkpoint(folder: Path) -> str:
    """A small network for images of 256 pixels, for what a run asks of its checkpoint."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=SIDE,
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    DDPMPipeline(network, DDPMScheduler()).save_pretrained(folder)
    return str(folder)


def row(engine: str, workers: int, runs: Sequence[Measured]) -> str:
    """One line of the first table: the best repetition, and the median in brackets."""

    def both(value: Callable[[Measured], float], digits: int, best: Callable[..., float]) -> str:
        found = [value(run) for run in runs]
        return f"{best(found):.{digits}f} ({median(found):.{digits}f})"

    return (
        f"{engine:5s}  {workers:7d}  {both(lambda m: m.steady, 3, min):>15s}"
        f"  {both(lambda m: m.images_per_s, 1, max):>13s}"
        f"  {both(lambda m: 100 * m.wait_share, 2, min):>13s}"
        f"  {both(lambda m: 1e3 * m.image_cpu_s, 1, min):>12s}"
        f"  {both(lambda m: m.first_image_s, 1, min):>12s}"
        f"  {max(m.peak_bytes for m in runs) / 1e6:7.0f}"
        f"  {max(m.store_bytes / m.images for m in runs):8.0f}"
    )


def targets(runs: dict[tuple[str, int], list[Measured]], budget: int) -> list[Target]:
    """What was asked for, of the best repetitions."""
    local, one, two = (runs[cell] for cell in CELLS)
    every = [run for found in runs.values() for run in found]
    speed = max(m.images_per_s for m in two) / max(m.images_per_s for m in one)
    ratio = min(m.steady for m in one) / min(m.steady for m in local)
    return [
        Target("steady wall time / model time, local", min(m.steady for m in local), 1.05),
        Target("steady wall time / model time, ray", min(m.steady for m in one), 1.05),
        Target("ray / local", ratio, 1.03),
        Target("model waits, local", 100 * min(m.wait_share for m in local), 2, unit=" %"),
        Target("model waits, ray", 100 * min(m.wait_share for m in one), 2, unit=" %"),
        Target("two workers / one", speed, 1.9, at_least=True),
        Target("bytes in the object store, an image", max(m.store_bytes for m in every), 0),
        Target("largest worker / its memory budget", max(m.peak_bytes for m in every) / budget, 1),
    ]


def main(
    shards: Annotated[int, typer.Option(min=2, help="A worker.")] = 12,
    images: Annotated[int, typer.Option(min=1, help="A shard.")] = 64,
    repetitions: Annotated[int, typer.Option(min=1)] = 3,
    milliseconds: Annotated[float, typer.Option(help="Of the model, an image.")] = 20.0,
    file_format: Annotated[str, typer.Option("--format", help="Of edited images.")] = "jpeg",
) -> None:
    """Print what the engines make of the model's time."""
    print(describe())
    with tempfile.TemporaryDirectory(prefix="engine", dir="/tmp") as temporary:
        root = Path(temporary)
        paths = write_shards(root, 2 * shards, images)
        mean_mb = sum(Path(p).stat().st_size for p in paths) / len(paths) / 1e6
        print(
            f"{shards} shards a worker, each of {images} JPEG photographs of {SIDE} x {SIDE}"
            f" ({mean_mb:.1f} MB); one {file_format} edit an image; the model sleeps"
            f" {milliseconds:g} ms an image, in batches of 8\n"
            "steady: from when a worker's model takes its first shard to when it lets go of its"
            " last / (images x the model's time of one), mean over workers\n"
            "waits: (held but waiting + free before a shard took it) / (held + free), percent, by"
            " the receipts, from when a worker is ready\n"
            f"best of {repetitions} repetitions, median in brackets; peak and store: the worst\n"
        )
        print(
            "engine  workers           steady       images/s        waits %    CPU ms/img"
            "  1st image, s  peak MB  store B/img"
        )
        checkpoint = write_checkpoint(root / "model")
        runs: dict[tuple[str, int], list[Measured]] = {cell: [] for cell in CELLS}
        orders: list[Order] = []
        for repetition in range(repetitions):
            for engine, workers in CELLS:
                folder = str(root / f"{engine}-{workers}-{repetition}")
                order = Order(
                    engine, workers, paths[: shards * workers], checkpoint, folder,
                    image_s=milliseconds / 1e3, side=SIDE, format=file_format,
                )  # fmt: skip
                orders.append(order)
                runs[engine, workers].append(in_process_of_its_own(order))
        for (engine, workers), found in runs.items():
            print(row(engine, workers, found))
        config = config_of(orders[-1])
        size = largest_shard(config, expand_inputs(config.input.shards))
        if size is None:
            raise SystemExit("the shards cannot be read")
        budget = memory_budget(config, size)
        again = [again_s(order) for order in orders[-len(CELLS) :]]
        print(f"\n{budget.sentence()}")
        print(f"no-op re-run of the command, s: {min(again):.1f} ({median(again):.1f})\n")
        print(f"{'target':44s}  {'found':>8s}  {'asked':>7s}  met")
        for target in targets(runs, budget.host):
            print(target.row())


if __name__ == "__main__":
    typer.run(main)
