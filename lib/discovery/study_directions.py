"""Directions made of what was summed over a whole run: principal components of h (Haas et al.
2024), and directions from labels (eq. 11).

Shape suffixes: S timesteps, C, Y, X of h; D all entries of h at S steps; K components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lib.direction import WHOLE, Direction, content_id, stored
from lib.discovery.extremes import Extremes, contrasts
from lib.discovery.pca import Moments, components
from lib.discovery.signs import LARGEST_ENTRY, aligned_to
from lib.discovery.statistics_files import Study
from lib.discovery.supervised import logistic, mean_difference

HIGH_MINUS_LOW = "high_minus_low"
"""+ goes from the images that score low on the label to those that score high."""

_L2 = 1.0
"""Of the logistic regression, whose samples have norm 1 in the root mean square and weight 1, where
the study does not say.
"""

_VANISHING = 1e-9
"""Part of a direction's norm below which one of its steps has no direction of its own."""


def component_directions(study: Study, sums: Mapping[tuple[int, ...], Moments]) -> list[Direction]:
    """The leading components of every set of timesteps, by set and rank; where there is one set a
    timestep, signs agree with those of the same rank at the timestep above.

    Raises:
        ValueError: there are fewer than two images, or they are all equal.
    """
    count = study.parameters["components"]
    directions: dict[tuple[int, ...], list[Direction]] = {}
    above_KD: Tensor | None = None
    for timesteps in sorted(sums, reverse=True):
        moments = sums[timesteps]
        V_KD, std_K = components(moments, count + 1)
        if above_KD is not None:
            for k in range(min(len(V_KD), len(above_KD))):
                V_KD[k] = aligned_to(V_KD[k], above_KD[k])
        above_KD = V_KD
        kept = float((moments.factor_RD**2).sum())
        parameters = {
            **study.parameters,
            "images": moments.count,
            "discarded_energy": moments.discarded / (kept + moments.discarded),
        }
        directions[timesteps] = [
            _direction(
                study,
                V_KD[k],
                timesteps,
                parameters,
                rank=k,
                singular_value=float(std_K[k]),
                gap=float(std_K[k + 1] / std_K[k]) if k + 1 < len(std_K) else None,
                sign_rule=LARGEST_ENTRY,
                support=moments.count,
                label=None,
            )
            for k in range(min(count, len(V_KD)))
        ]
    return [direction for timesteps in sums for direction in directions[timesteps]]


def label_direction(study: Study, label: str, found: Extremes) -> Direction:
    """The direction from low to high scores of a label; its singular value is the norm of the
    difference of the means, in units of h.

    Raises:
        ValueError: one class only, or too few images on a side.
        ArithmeticError: the logistic regression did not converge.
    """
    difference_D = mean_difference(found)
    l2 = float(study.parameters.get("l2", _L2))
    fitted_D = logistic(found, l2) if study.parameters["fit"] == "logistic" else difference_D
    sides = [side for pair in contrasts(found) for side in pair]
    parameters = {
        **study.parameters,
        "labelled": sum(stratum.count for stratum in found.strata),
        "missing": found.missing,
        "compared": [len(side.ids) for side in sides],
    }
    if study.parameters["fit"] == "logistic":
        parameters["l2"] = l2
    return _direction(
        study,
        fitted_D,
        study.timesteps,
        parameters,
        rank=0,
        singular_value=float(difference_D.norm()),
        gap=None,
        sign_rule=HIGH_MINUS_LOW,
        support=len({identity for side in sides for identity in side.ids}),
        label=label,
    )


def _direction(
    study: Study,
    v_D: Tensor,
    timesteps: Sequence[int],
    parameters: Mapping[str, Any],
    *,
    rank: int,
    singular_value: float,
    gap: float | None,
    sign_rule: str,
    support: int,
    label: str | None,
) -> Direction:
    steps_SCYX = v_D.view(len(timesteps), *study.h_shape)
    norm_S = steps_SCYX.flatten(1).norm(dim=1)
    vanished = [
        t for t, norm in zip(timesteps, norm_S, strict=True) if norm <= _VANISHING * norm_S.norm()
    ]
    if vanished:
        raise ValueError(
            f"at timestep {vanished[0]} there is no difference in h; leave it out of"
            " discover.timesteps"
        )
    vector_SCYX = stored(steps_SCYX, study.vector_dtype)
    return Direction(
        vector_SCYX=vector_SCYX,
        id=content_id(vector_SCYX, "h", study.h_layer, study.model, timesteps),
        space="h",
        h_layer=study.h_layer,
        model=study.model,
        timesteps=tuple(timesteps),
        method=study.method,
        # Every step is stored with unit norm; the shares say how it was distributed.
        parameters={**parameters, "step_shares": [float(n / norm_S.norm()) for n in norm_S]},
        region=WHOLE,
        mask_sha256="",
        shard=None,
        index=None,
        key=None,
        rank=rank,
        singular_value=singular_value,
        gap=gap,
        residual=None,
        angle=None,
        converged=True,
        jvp_count=0,
        vjp_count=0,
        sign_rule=sign_rule,
        h_norm=study.h_norms[study.timesteps.index(timesteps[0])],
        label=label,
        support=support,
    )
