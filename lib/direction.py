"""A latent editing direction: a unit shift of h with everything needed to use it again, and its
algebra.

Shape suffixes: S steps (1 when one direction serves every timestep), C channels, Y, X of h.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lib.discovery.null_space import without
from lib.region_names import WHOLE as WHOLE


@dataclass(frozen=True, slots=True)
class Scores:
    """What a direction does to held-out images at the strength that changes its region by
    `in_change`; medians over the images.
    """

    images: int
    strength: float
    """In units of the model's mean norm of h."""
    in_change: float
    """Mean |edited - reconstruction| in the region, images in [-1, 1]."""
    roir: float
    """The same outside the region / inside it; lower is more local."""
    consistency: float
    """Mean cosine between the changes it makes in the region of different images."""
    linearity: float
    """1 - |full - 2 half| / |full| of the changes in the region at full and at half strength: 1 for
    a dial, 0 for a switch.
    """
    symmetry: float
    """Minus the cosine between the changes at plus and at minus the strength."""
    score: float
    """What a library is ranked by; higher is better."""
    factor: str | None = None
    """The factor that moves most, where a regressor of factors is at hand."""
    factor_change: float | None = None
    other_change: float | None = None
    """Mean |change| of all other factors."""


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction; `vector` is float32, CPU, every step of unit norm.

    `space` is "h", or "x" for a shift of x_t, whose vector is (S, L, Y, X) of the latent and whose
    `h_norm` is the norm of unit noise, sqrt(L Y X).
    """

    vector_SCYX: Tensor
    id: str
    space: str
    h_layer: str
    model: str
    """SHA-256 of the weights it belongs to."""
    timesteps: tuple[int, ...]
    """Where it was found, one for every step of the vector."""
    method: str
    parameters: Mapping[str, Any]
    region: str
    """Name of the region it changes; WHOLE where it is not tied to one."""
    mask_sha256: str
    shard: str | None
    """Of the image in which it was found; None, as index and key, where it comes from many."""
    index: int | None
    key: str | None
    rank: int
    singular_value: float
    """How strongly the model answers, in the method's own units; directions are ranked by it."""
    gap: float | None
    """None, as residual and angle, for a method without an iteration."""
    residual: float | None
    angle: float | None
    converged: bool
    jvp_count: int
    vjp_count: int
    sign_rule: str
    h_norm: float
    """The model's mean norm of h at the (first) timestep: the unit of strength."""
    parents: tuple[str, ...] = ()
    label: str | None = None
    window: tuple[int, int] | None = None
    """Highest and lowest timestep at which it should be applied; None: whatever the run says."""
    support: int = 1
    """Images it comes from."""
    spread: float | None = None
    """Mean sine of the angle between it and the directions it was merged from."""
    scores: Scores | None = None
    unit_strength: float = 1.0
    """What a strength of 1 is, in units of `h_norm`: 1, or the length at which the direction does
    what it was found for.
    """
    lengths: tuple[float, ...] = ()
    """Factor on the strength at every step, of a direction that was learned with them; empty: 1
    everywhere.
    """

    def length(self, step: int) -> float:
        """The factor at a step."""
        return self.lengths[step] if self.lengths else 1.0


def content_id(
    vector_SCYX: Tensor, space: str, h_layer: str, model: str, steps: Sequence[int]
) -> str:
    """16 hex digits of a hash of what the direction does; the same shift has the same id
    everywhere.
    """
    head = json.dumps([space, h_layer, model, list(steps), list(vector_SCYX.shape)])
    digest = hashlib.sha256(head.encode())
    digest.update(vector_SCYX.float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def stored(vector_SCYX: Tensor, dtype: str) -> Tensor:
    """The vector as it will be read back from `dtype` storage, float32, every step of unit norm
    before rounding.

    Edits use this rounding too, so that a later run from the library makes the same images.
    """
    unit_SCYX: Tensor = vector_SCYX / vector_SCYX.flatten(1).norm(dim=1)[:, None, None, None]
    rounded_SCYX = unit_SCYX.half() if dtype == "float16" else unit_SCYX
    return rounded_SCYX.float()


def vector_at(direction: Direction, t: int) -> Tensor:
    """The direction's step for timestep `t`: the only one, or the one found nearest to `t`."""
    distances = [abs(t - found) for found in direction.timesteps]
    return direction.vector_SCYX[distances.index(min(distances))]


def _derived(
    base: Direction, vector_SCYX: Tensor, parents: Sequence[Direction], method: str
) -> Direction:
    unit_SCYX = stored(vector_SCYX, "float32")
    identity = content_id(unit_SCYX, base.space, base.h_layer, base.model, base.timesteps)
    return replace(
        base,
        vector_SCYX=unit_SCYX,
        id=identity,
        method=method,
        parents=tuple(p.id for p in parents),
        scores=None,
    )


def negated(direction: Direction) -> Direction:
    """The opposite direction."""
    return _derived(direction, -direction.vector_SCYX, [direction], "negated")


def combined(directions: Sequence[Direction], coefficients: Sequence[float]) -> Direction:
    """The weighted sum, of unit norm again; where one is learned, each at the lengths of its own,
    which the sum keeps.

    Raises:
        ValueError: the directions belong to different models, layers or steps, or cancel out.
    """
    first = directions[0]
    for other in directions[1:]:
        same = (other.space, other.h_layer, other.model, other.timesteps)
        if same != (first.space, first.h_layer, first.model, first.timesteps):
            raise ValueError(
                f"directions {first.id} and {other.id} differ in space, layer, model or timesteps"
                " and cannot be added"
            )
    learned = any(d.lengths for d in directions)
    total_SCYX = sum(
        (c * _scaled(d, learned) for c, d in zip(coefficients, directions, strict=True)),
        torch.zeros_like(first.vector_SCYX),
    )
    if bool((total_SCYX.flatten(1).norm(dim=1) < 1e-6).any()):
        raise ValueError("the weighted sum of the directions is zero")
    lengths = tuple(total_SCYX.flatten(1).norm(dim=1).tolist()) if learned else ()
    whole = _derived(first, total_SCYX, directions, "combined")
    return replace(whole, unit_strength=1.0, lengths=lengths)


def _scaled(direction: Direction, learned: bool) -> Tensor:
    """The vector; among learned directions at the lengths of strength 1, which they keep."""
    if not learned:
        return direction.vector_SCYX
    lengths = [direction.length(s) for s in range(len(direction.timesteps))]
    scale_S = torch.tensor(lengths) * direction.unit_strength
    return direction.vector_SCYX * scale_S[:, None, None, None]


def projected_out(direction: Direction, removed: Sequence[Direction]) -> Direction:
    """[I - V (V^T V)^-1 V^T] v: without its part in the span of `removed` (Haas et al. 2024, eq.
    12).

    Every step is projected on its own, since each has unit norm again afterwards and only so the
    flattened vectors stay orthogonal. A removed direction of one step counts at every step, and
    one of several is removed as a whole from a direction that serves all steps.

    Raises:
        ValueError: nothing is left at some step, or the directions differ in space, layer, model
            or timesteps.
    """
    for other in removed:
        same = (other.space, other.h_layer, other.model, other.vector_SCYX.shape[1:])
        mine = direction.vector_SCYX
        if same != (direction.space, direction.h_layer, direction.model, mine.shape[1:]) or (
            len(mine) > 1 and len(other.vector_SCYX) > 1 and other.timesteps != direction.timesteps
        ):
            raise ValueError(
                f"directions {direction.id} and {other.id} differ in space, layer, model or"
                " timesteps and cannot be projected on each other"
            )
    steps = len(direction.vector_SCYX)
    left = []
    for step, v_CYX in enumerate(direction.vector_SCYX):
        parts = [
            r.vector_SCYX[step : step + 1] if 1 < steps == len(r.vector_SCYX) else r.vector_SCYX
            for r in removed
        ]
        try:
            left.append(without(v_CYX.flatten()[None], torch.cat(parts).flatten(1)))
        except ValueError as error:
            raise ValueError(
                f"direction {direction.id} lies in the span of the directions to project out at"
                f" timestep {direction.timesteps[step]}"
            ) from error
    left_SCYX = torch.cat(left).view_as(direction.vector_SCYX)
    return _derived(direction, left_SCYX, [direction, *removed], "projected_out")
