"""Asyrp's direction functions and per-step tensors as ordinary directions: averaged over images,
and over time where one vector is wanted (delta h mean and delta h global of Kwon et al. 2023).

The steps of a direction are unit vectors; their lengths before that are in its parameters
(`norms`, in units of h). Asyrp's own edit is the strength norms / h_norm, times the steps it was
trained with over the steps of the decoding.

Shape suffixes: B images, C channels, Y, X of h, S steps, D = C Y X.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lib.direction import Direction
from lib.directions.asyrp import DirectionFunction, StepDeltas
from lib.directions.bare_directions import Placement, published
from lib.problems import ConfigProblem

METHOD = "asyrp"


@torch.no_grad()
def baked(
    function: DirectionFunction,
    h: Mapping[int, Tensor],
    placement: Placement,
    *,
    per_step: bool = True,
) -> Direction:
    """The mean of f_t(h) over images, at each timestep, or (`per_step` false) over these too.

    `h` maps timesteps to h_BCYX of the same images. `support` is their number and `spread` the mean
    sine between an image's own delta h and the mean. The window is the range of timesteps. A
    global direction is placed at the highest.

    Raises:
        ConfigProblem: f_t has other channels than h, works elsewhere than after the mid block, or
            averages to zero.
        ValueError: no h, not the same number of images at every timestep, or h is not finite.
    """
    _check(placement, (function.channels, *placement.shape[1:]), function.source)
    counts = {len(h_BCYX) for h_BCYX in h.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"expected h of the same images at every timestep, got counts {counts}")
    means, sines = dict[int, Tensor](), list[Tensor]()
    for t in sorted(h, reverse=True):
        if tuple(h[t].shape[1:]) != placement.shape or not bool(torch.isfinite(h[t]).all()):
            raise ValueError(
                f"expected finite h (B, {', '.join(map(str, placement.shape))}) at timestep {t},"
                f" got {tuple(h[t].shape)}"
            )
        delta_BD = function.apply(h[t], t).flatten(1).double().cpu()
        mean_D = delta_BD.mean(dim=0)
        cosine_B = torch.nn.functional.cosine_similarity(delta_BD, mean_D[None], dim=1)
        sines.append((1 - cosine_B.square()).clamp_min(0).sqrt())
        means[t] = mean_D.view(placement.shape)
    parameters = {"file": function.source, "block": function.block, "per_step": per_step}
    return _direction(
        means,
        placement,
        parameters,
        per_step=per_step,
        support=counts.pop(),
        spread=float(torch.cat(sines).mean()),
    )


def step_direction(
    deltas: StepDeltas, placement: Placement, *, per_step: bool = True, top: int = 999
) -> Direction:
    """The direction of a file of tensors: its steps, or (`per_step` false) the one that it has for
    every timestep, else their mean. A file with nothing but the former needs `per_step` false, and
    is placed at `top`, since it does not say where it was trained.

    Raises:
        ConfigProblem: the tensors do not fit the placement, are zero, or there are no steps.
    """
    shapes = [tuple(v.shape) for v in deltas.steps.values()]
    if deltas.everywhere is not None:
        shapes.append(tuple(deltas.everywhere.shape))
    _check(placement, shapes[0], deltas.source)
    steps = dict(deltas.steps)
    if not steps and (per_step or deltas.everywhere is None):
        raise ConfigProblem(
            f"{deltas.source}: expected delta h at timesteps, found only the one for all of them;"
            " import it as a global direction"
        )
    parameters = {"file": deltas.source, "per_step": per_step}
    if not per_step and deltas.everywhere is not None:
        highest = max(steps, default=top)
        window = (highest, min(steps)) if steps else None
        return published(
            deltas.everywhere[None],
            placement,
            (highest,),
            method=METHOD,
            parameters=parameters,
            where=deltas.source,
            window=window,
        )
    return _direction(steps, placement, parameters, per_step=per_step, support=1, spread=None)


def _direction(
    means: Mapping[int, Tensor],
    placement: Placement,
    parameters: dict[str, object],
    *,
    per_step: bool,
    support: int,
    spread: float | None,
) -> Direction:
    timesteps = tuple(means)
    vector_SCYX = torch.stack([v.double() for v in means.values()])
    if not per_step:
        vector_SCYX, timesteps = vector_SCYX.mean(dim=0, keepdim=True), timesteps[:1]
    return published(
        vector_SCYX,
        placement,
        timesteps,
        method=METHOD,
        parameters=parameters,
        where=str(parameters["file"]),
        window=(max(means), min(means)),
        support=support,
        spread=spread,
    )


def _check(placement: Placement, shape: tuple[int, ...], source: str) -> None:
    if (placement.space, placement.h_layer) != ("h", "after"):
        raise ConfigProblem(
            f"{source}: Asyrp shifts h after the mid block; expected space h and h_layer after, got"
            f" {placement.space} and {placement.h_layer}"
        )
    if shape != placement.shape:
        raise ConfigProblem(
            f"{source}: expected delta h {placement.shape} for this model, got {shape}"
        )
