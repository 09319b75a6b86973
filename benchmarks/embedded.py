"""The embedded model, loaded once and driven by hand: what the measurements share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from lib.demo.faces import masks, render, sample_factors
from lib.denoiser import Denoiser
from lib.direction import Direction
from lib.discovery.masked_jacobian import masked_jacobian
from lib.discovery.region_problem import Search
from lib.editing.edit_plan import every_strength
from lib.files.images import Geometry
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import EMBEDDED, open_checkpoint, weights_sha256
from lib.records import Inverted, Sample, Segmented
from lib.regions import make_region
from lib.sampling.calibration import h_norms
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid, make_grid
from tasks.discover import JacobianDiscoverer, Recipe, Stamp
from tasks.edit import Editor
from tasks.invert import Inverter

SIZE = 64
HELD_OUT_SEED = 9191
"""Faces of this seed are in no training set."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Model, grid and units."""

    denoiser: Denoiser
    grid: Grid
    weights: str
    h_norms: dict[int, float]

    def editor(self, window: tuple[int, int], batch_size: int = 32) -> Editor:
        """Asymmetric injection in `window`."""
        return Editor(
            self.denoiser,
            self.grid,
            window=window,
            injection="asymmetric",
            sampler=DdimSampler(),
            plan=every_strength((1.0,)),
            batch_size=batch_size,
            h_norms=self.h_norms,
        )

    def inverted(
        self, faces: Sequence[Sample], *, last: int, keep: Sequence[int], refinements: int
    ) -> list[Inverted]:
        """The invert stage; every face must pass."""
        stage = Inverter(
            self.denoiser,
            self.grid,
            last=last,
            keep=frozenset(keep),
            sampler=DdimSampler(refinements),
            batch_size=8,
        )
        return list(stage(faces, _refuse))

    def discover(self, faces: Sequence[Segmented], node: int, count: int) -> list[list[Direction]]:
        """The discover stage: directions of every face, region by region."""
        method = partial(masked_jacobian, search=Search(count, 0.1, 30))
        stage = JacobianDiscoverer(
            self.denoiser,
            self.grid,
            nodes=[node],
            recipe=Recipe("jacobian", method, {}),
            stamp=Stamp(self.weights, "after", self.h_norms, "float32"),
        )
        return [list(found.directions) for found in stage(faces, _refuse)]


def load_bench(num_steps: int) -> Bench:
    """The embedded model on a grid of `num_steps`."""
    checkpoint = open_checkpoint(EMBEDDED)
    grid = make_grid(checkpoint.scheduler_config, num_steps, "linspace")
    denoiser = load_denoiser(checkpoint, torch.device("cpu"), "after")
    return Bench(denoiser, grid, weights_sha256(checkpoint), h_norms(denoiser, grid))


def held_out(count: int, seed: int = HELD_OUT_SEED) -> tuple[list[Sample], list[dict[str, Tensor]]]:
    """Unseen generated faces and their zones by name, (H, W) coverage each."""
    factors_BF = sample_factors(count, seed)
    image_BCHW = render(factors_BF, SIZE).image_BCHW
    zones = masks(factors_BF, SIZE).zones
    geometry = Geometry(SIZE, SIZE, 0, 0, SIZE, SIZE, SIZE, "PNG", "RGB", 1)
    faces = [
        Sample("held-out", i, f"face-{i:03d}", image_BCHW[i], geometry, {}, seed * 1000 + i)
        for i in range(count)
    ]
    return faces, [{name: z_BHW[i] for name, z_BHW in zones.items()} for i in range(count)]


def segmented(
    inverted: Sequence[Inverted], zones: Sequence[dict[str, Tensor]], regions: Sequence[str]
) -> list[Segmented]:
    """Faces with their true zones as regions."""
    return [
        Segmented(face, tuple(make_region(name, zone[name]) for name in regions))
        for face, zone in zip(inverted, zones, strict=True)
    ]


def _refuse(failure: object) -> None:
    raise ArithmeticError(f"a held-out face was rejected: {failure}")
