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


@dataclass(frozen=True, slots=True)
class Direction:
    """One direction; `vector` is float32, CPU, every step of unit norm."""

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
    mask_sha256: str
    shard: str
    index: int
    key: str
    rank: int
    singular_value: float
    gap: float
    residual: float
    angle: float
    converged: bool
    jvp_count: int
    vjp_count: int
    sign_rule: str
    h_norm: float
    """The model's mean norm of h at the (first) timestep: the unit of strength."""
    parents: tuple[str, ...] = ()
    label: str | None = None


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
    )


def negated(direction: Direction) -> Direction:
    """The opposite direction."""
    return _derived(direction, -direction.vector_SCYX, [direction], "negated")


def combined(directions: Sequence[Direction], coefficients: Sequence[float]) -> Direction:
    """The weighted sum, of unit norm again.

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
    total_SCYX = sum(
        (c * d.vector_SCYX for c, d in zip(coefficients, directions, strict=True)),
        torch.zeros_like(first.vector_SCYX),
    )
    if bool((total_SCYX.flatten(1).norm(dim=1) < 1e-6).any()):
        raise ValueError("the weighted sum of the directions is zero")
    return _derived(first, total_SCYX, directions, "combined")


def projected_out(direction: Direction, removed: Sequence[Direction]) -> Direction:
    """[I - V (V^T V)^-1 V^T] v: without its part in the span of `removed` (Haas et al. 2024, eq.
    12).

    Raises:
        ValueError: nothing is left.
    """
    v_D = direction.vector_SCYX.flatten().double()
    V_DK = torch.stack([r.vector_SCYX.flatten().double() for r in removed], dim=1)
    left_D = v_D - V_DK @ torch.linalg.lstsq(V_DK, v_D[:, None]).solution[:, 0]
    if float(left_D.norm()) < 1e-6 * float(v_D.norm()):
        raise ValueError(
            f"direction {direction.id} lies in the span of the directions to project out"
        )
    return _derived(
        direction,
        left_D.float().view_as(direction.vector_SCYX),
        [direction, *removed],
        "projected_out",
    )
