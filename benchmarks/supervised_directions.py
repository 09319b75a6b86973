"""Directions of all 16 factors from labelled faces: h of generated faces at every grid timestep up
to the top of the windows, and two fits.

Shape suffixes: N faces, F factors, S timesteps, C, Y, X of h.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.embedded import Bench, held_out
from benchmarks.stage_cache import kept
from lib.demo.faces import FACTORS, sample_factors
from lib.direction import Direction
from lib.discovery.extremes import extremes
from lib.discovery.statistics_files import Study
from lib.discovery.study_directions import label_direction
from lib.records import Sample

TRAINING_SEED = 555
FITS = ("mean", "logistic")
L2 = 0.1
"""Of the logistic regression. On three calibration faces 0.1, 0.01 and 0.001 edit alike, since the
classes separate: |own change| / others, mean over the factors, 6.1 early and 5.6 late, against 5.1
and 4.7 of the difference of means, the limit of a large l2.
"""
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Training:
    """Labelled faces as the network sees them."""

    h_NSCYX: Tensor
    """float32."""
    timesteps: tuple[int, ...]
    """Descending, one for every step of h."""
    factors_NF: Tensor
    """The labels: the factors that the faces were drawn from."""


def training(bench: Bench, count: int, top: int, cache: Path | None = None) -> Training:
    """h of `count` training faces at every grid timestep up to `top`, from plain DDIM inversion."""
    nodes = range(bench.grid.last_node(top), 0, -1)
    timesteps = tuple(bench.grid.timestep(node) for node in nodes)
    settings = (bench.weights, bench.grid.timesteps, timesteps[0], count, TRAINING_SEED)

    def make() -> Tensor:
        faces, _ = held_out(count, TRAINING_SEED)
        parts = [faces[first : first + _BATCH] for first in range(0, count, _BATCH)]
        return torch.cat([_h(bench, part, timesteps) for part in parts])

    h_NSCYX = kept(cache, "training", settings, make)
    return Training(h_NSCYX, timesteps, sample_factors(count, TRAINING_SEED))


def label_directions(bench: Bench, known: Training, fit: str) -> list[Direction]:
    """The direction of every factor, in the order of FACTORS: the third of the faces with the
    highest values against the third with the lowest.
    """
    everybody_N = torch.ones(len(known.h_NSCYX), dtype=torch.bool)
    return [_fitted(bench, known, fit, factor, everybody_N) for factor in range(len(FACTORS))]


def confounded(bench: Bench, known: Training, fit: str, own: int, other: int) -> Direction:
    """The direction of factor `own` from those faces alone in which factor `other` has the same
    sign: labels that go together, as in photos they do.
    """
    together_N = known.factors_NF[:, own] * known.factors_NF[:, other] > 0
    return _fitted(bench, known, fit, own, together_N)


def _fitted(bench: Bench, known: Training, fit: str, factor: int, used_N: Tensor) -> Direction:
    h_ND = known.h_NSCYX[used_N].flatten(1)
    examples = len(h_ND) // 3
    channels, rows, columns = bench.denoiser.h_shape
    study = Study(
        method="supervised",
        parameters={"fit": fit, "l2": L2, "examples": examples},
        timesteps=known.timesteps,
        h_norms=tuple(bench.h_norms[t] for t in known.timesteps),
        h_shape=(channels, rows, columns),
        h_layer="after",
        model=bench.weights,
        vector_dtype="float32",
    )
    ids = [f"training/{i:08d}" for i in range(len(h_ND))]
    found = extremes(h_ND, known.factors_NF[used_N, factor], ids, examples)
    return label_direction(study, FACTORS[factor], found)


@torch.no_grad()
def _h(bench: Bench, faces: list[Sample], timesteps: tuple[int, ...]) -> Tensor:
    top = bench.grid.nearest_node(timesteps[0])
    inverted = bench.inverted(faces, last=top, keep=range(1, top + 1), refinements=0)
    steps = []
    for t in timesteps:
        x_BLYX = torch.stack([face.states_LYX[t] for face in inverted])
        steps.append(bench.denoiser.bottleneck(x_BLYX, t))
    return torch.stack(steps, dim=1)
