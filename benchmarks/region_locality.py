"""Directions found with learned regions beside those found with the true zones, edited to the same
change of the true zone: what a mask without labels costs in locality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from benchmarks.embedded import Bench
from benchmarks.locality import NUM_STEPS, TIMESTEP, WINDOW
from lib.direction import Direction
from lib.discovery.localised import localised_directions
from lib.discovery.region_problem import Search
from lib.masks.automatic import AutomaticMasks
from lib.records import Failure, Inverted, Segmented
from lib.regions import make_region
from pipelines.strength_search import matched
from tasks.discover import JacobianDiscoverer, Recipe, Stamp

REGIONS = ("eyes", "mouth", "hair")
TARGET = 0.15
TRADE_OFF = 0.1
FIRST = 0.15
CONDITIONS = (
    f"{NUM_STEPS} steps, 2 refinements, localised directions (lambda {TRADE_OFF}) of t={TIMESTEP},"
    f" window {WINDOW}, asymmetric, change of the true zone {TARGET}"
)


@dataclass(frozen=True, slots=True)
class Edited:
    """One edit."""

    region: str
    masks: str
    """true / automatic: with which the direction was found."""
    roir: float
    """Change outside the true zone / inside."""
    strength: float
    reached: bool


def edited(
    bench: Bench, face: Inverted, zones: dict[str, torch.Tensor], automatic: AutomaticMasks
) -> list[Edited]:
    """The leading direction of every region by true and by automatic masks, on its own face."""
    answer = automatic([face.sample])[0]
    if isinstance(answer, Exception):
        raise answer
    masks = {"true": zones, "automatic": answer}
    kinds = [(kind, region) for kind in masks for region in REGIONS]
    directions = []
    for of_kind in masks.values():
        regions = tuple(make_region(name, of_kind[name]) for name in REGIONS)
        found = {d.region: d for d in _discovered(bench, Segmented(face, regions))}
        directions += [found[region] for region in REGIONS]
    edits = matched(
        bench.editor(WINDOW, batch_size=len(directions)),
        face.latent,
        directions,
        [zones[region] for _, region in kinds],
        target=TARGET,
        first=FIRST,
        rounds=6,
        tolerance=0.1,
    )
    return [
        Edited(region, kind, edit.roir, edit.strength, edit.reached)
        for (kind, region), edit in zip(kinds, edits, strict=True)
    ]


def _discovered(bench: Bench, face: Segmented) -> Sequence[Direction]:
    method = partial(localised_directions, search=Search(1, 0.1, 11), trade_off=TRADE_OFF)
    stage = JacobianDiscoverer(
        bench.denoiser,
        bench.grid,
        nodes=[bench.grid.nearest_node(TIMESTEP)],
        recipe=Recipe("localised", method, {}),
        stamp=Stamp(bench.weights, "after", bench.h_norms, "float32"),
    )
    return next(iter(stage([face], _refuse))).directions


def _refuse(failure: Failure) -> None:
    raise ArithmeticError(f"a held-out face was rejected: {failure}")
