"""What a rectifier gives back of an image that DDIM inversion on few steps has lost, in the form of
Hou et al. 2023, Table 1. `python -m benchmarks.rectifier TRAINING`.

Shape suffixes: N faces, B, C, H, W of images, F factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.embedded import HELD_OUT_SEED, Bench, held_out, load_bench
from benchmarks.machine import describe
from lib.demo.regressor import load, read
from lib.denoiser import Denoiser
from lib.editors.editor_files import find_editor
from lib.editors.editor_record import RECTIFIER
from lib.editors.loading import rebuilt_rectifier
from lib.metrics.posterior_gap import PosteriorGap
from lib.metrics.similarity import ssim
from lib.models.unet_denoiser import UNetDenoiser
from lib.records import Sample
from lib.rectifier.hypernetwork import Rectifier
from lib.rectifier.rectified import RectifiedDenoiser
from lib.sampling.ddim import decoding, inversion

STEPS = (10, 20, 50)
GAP_TIMESTEPS = (50, 150, 300, 500, 750)
DRAWS, LEVEL = 9999, 0.95
COLUMNS = ("L1", "L2", "SSIM", "gap", "factors")
BETTER = {"L1": -1, "L2": -1, "SSIM": 1, "gap": -1, "factors": -1}
"""Column -> the sign of an improvement."""


@dataclass(frozen=True, slots=True)
class Fidelity:
    """(N,) each, of reconstructions against the images."""

    of: dict[str, Tensor]


def load_rectifier(path: str, bench: Bench) -> Rectifier:
    """The rectifier of a training, frozen."""
    record, tensors = find_editor(path, RECTIFIER, bench.weights, "TRAINING")
    rectifier = rebuilt_rectifier(record, tensors, network(bench))
    return rectifier.eval().requires_grad_(False)


def network(bench: Bench) -> UNetDenoiser:
    """The frozen network."""
    if not isinstance(bench.denoiser, UNetDenoiser):
        raise TypeError("the embedded model is one U-Net")
    return bench.denoiser


@torch.no_grad()
def fidelity(bench: Bench, faces: Sequence[Sample], rectifier: Rectifier | None) -> Fidelity:
    """Of plain DDIM inversion to the last timestep and back, both with the rectifier."""
    last, regressor = bench.grid.num_steps, load()
    nodes = [bench.grid.nearest_node(t) for t in GAP_TIMESTEPS]
    rows: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for sample in faces:
        denoiser: Denoiser = bench.denoiser
        if rectifier is not None:
            denoiser = RectifiedDenoiser(network(bench), rectifier, sample.image_CHW)
        steps = inversion(
            denoiser.predict, bench.grid, sample.image_CHW[None], last=last, refinements=0
        )
        *_, (_, top_BLYX) = steps
        x_BLYX = decoding(denoiser.predict, bench.grid, top_BLYX, first=last)
        image_BCHW = x_BLYX.clamp(-1, 1)
        off_BCHW = image_BCHW - sample.image_CHW
        factors_BF = read(regressor, torch.cat([image_BCHW, sample.image_CHW[None]]))
        gap = PosteriorGap(denoiser, bench.grid, nodes)
        values = (
            float(off_BCHW.abs().mean()),
            float(off_BCHW.square().mean()),
            float(ssim(image_BCHW, sample.image_CHW[None])),
            gap(sample.image_CHW, sample.seed),
            float((factors_BF[0] - factors_BF[1]).abs().mean()),
        )
        for name, value in zip(COLUMNS, values, strict=True):
            rows[name].append(value)
    return Fidelity({name: torch.tensor(values) for name, values in rows.items()})


def interval(difference_N: Tensor) -> tuple[float, float]:
    """Of the mean, by a percentile bootstrap over the faces (Efron 1979)."""
    generator = np.random.default_rng(0)
    pick = generator.integers(0, len(difference_N), (DRAWS, len(difference_N)))
    means = difference_N.numpy()[pick].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def main(
    training: Annotated[str, typer.Argument(help="The folder of a rectifier's training.")],
    faces: Annotated[int, typer.Option(help="Held-out faces.")] = 16,
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(describe())
    print(
        f"{faces} held-out faces (seed {HELD_OUT_SEED}): plain DDIM inversion to the last timestep"
        " and back, both without and with the rectifier; L2 is the mean square,\ngap |z - eps|^2 at"
        f" t = {', '.join(map(str, GAP_TIMESTEPS))} (nearest of the grid), factors the mean"
        " |error| of the 16 factors; change [95 % bootstrap, paired by face]"
    )
    samples, _ = held_out(faces)
    print("\nsteps  column    without     with      change [interval]            better beyond it")
    for steps in STEPS:
        bench = load_bench(steps)
        rectifier = load_rectifier(training, bench)
        before, after = fidelity(bench, samples, None), fidelity(bench, samples, rectifier)
        for name in COLUMNS:
            difference_N = after.of[name] - before.of[name]
            low, high = interval(difference_N)
            better = high < 0 if BETTER[name] < 0 else low > 0
            print(
                f"{steps:5d}  {name:8s}  {before.of[name].mean():.6f}  {after.of[name].mean():.6f}"
                f"  {difference_N.mean():+.6f} [{low:+.6f}, {high:+.6f}]"
                f"  {'yes' if better else 'no'}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
