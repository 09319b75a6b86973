"""The embedded model, loaded once and driven by hand: what the measurements share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import torch
from torch import Tensor

from lib.calibration import h_norms
from lib.checkpoint import EMBEDDED, open_checkpoint, weights_sha256
from lib.demo.faces import masks, render, sample_factors
from lib.denoiser import Denoiser
from lib.direction import Direction
from lib.grid import Grid, make_grid
from lib.images import Geometry
from lib.injection import change
from lib.records import Inverted, Sample, Segmented
from lib.regions import make_region
from lib.unet2d import load_denoiser
from tasks.discover import JacobianDiscoverer
from tasks.edit import Editor, Shift
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
            strengths=(1.0,),
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
            refinements=refinements,
            batch_size=8,
        )
        return list(stage(faces, _refuse))

    def discover(self, faces: Sequence[Segmented], node: int, count: int) -> list[list[Direction]]:
        """The discover stage: directions of every face, region by region."""
        stage = JacobianDiscoverer(
            self.denoiser,
            self.grid,
            node=node,
            directions=count,
            tolerance=0.1,
            max_rounds=30,
            chunk=8,
            model=self.weights,
            h_layer="after",
            h_norms=self.h_norms,
            vector_dtype="float32",
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


@dataclass(frozen=True, slots=True)
class Matched:
    """An edit whose strength was searched until the region changed as much as was asked."""

    image_CHW: Tensor
    """float32 in [-1, 1]."""
    reconstruction_CHW: Tensor
    strength: float
    in_change: float
    roir: float


def matched(
    editor: Editor,
    start_LYX: Tensor,
    directions: Sequence[Direction],
    mask_HWs: Sequence[Tensor],
    *,
    target: float,
    first: float = 0.1,
    sign: float = 1.0,
    rounds: int = 8,
    tolerance: float = 0.05,
) -> list[Matched]:
    """Every direction at the strength that changes its region by `target` (mean |change|, [-1, 1]).

    Secant search on log strength against log change, all directions of the face in one batch; the
    best try is kept where the target is not met.
    """
    tries: list[list[tuple[float, Matched]]] = [[] for _ in directions]
    strengths = [first] * len(directions)
    open_ = list(range(len(directions)))
    for _ in range(rounds):
        shifts = [Shift(directions[i], sign * strengths[i]) for i in open_]
        images_BCHW = editor.decode(start_LYX, shifts)
        if images_BCHW is None:
            raise ArithmeticError("the network gave NaN or infinity")
        floats_BCHW = images_BCHW.float() / 127.5 - 1
        for row, i in enumerate(open_, 1):
            inside, outside = change(floats_BCHW[row, None], floats_BCHW[:1], mask_HWs[i])
            edit = Matched(
                floats_BCHW[row],
                floats_BCHW[0],
                sign * strengths[i],
                float(inside),
                float(outside / inside.clamp_min(1e-9)),
            )
            tries[i].append((abs(log(max(edit.in_change, 1e-6) / target)), edit))
            strengths[i] = _next_strength([t[1] for t in tries[i]], target)
        open_ = [i for i in open_ if min(t[0] for t in tries[i]) > tolerance]
        if not open_:
            break
    return [min(t, key=lambda pair: pair[0])[1] for t in tries]


def _next_strength(tries: list[Matched], target: float) -> float:
    points = sorted(
        {(log(abs(t.strength)), log(max(t.in_change, 1e-6))) for t in tries},
        key=lambda p: abs(p[1] - log(target)),
    )
    slope = 1.0
    if len(points) > 1 and points[0][0] != points[1][0]:
        slope = (points[0][1] - points[1][1]) / (points[0][0] - points[1][0])
    slope = min(max(slope, 0.3), 3.0)
    step = min(max((log(target) - points[0][1]) / slope, -1.5), 1.5)
    return float(torch.tensor(points[0][0] + step).exp())


def _refuse(failure: object) -> None:
    raise ArithmeticError(f"a held-out face was rejected: {failure}")
