"""The one rule for the sign of a direction, so that + means the same in every run, at every
timestep and in every image.

Singular vectors have no sign of their own. A reference decides where there is one, else the
largest entry. No continuous rule covers all vectors (v and -v would have to meet somewhere), so
every decision has a band in which it counts as a tie and the next one is asked.

Shape suffixes: D of h, K directions, N entries of the image, S steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lib.discovery.assignment import best_assignment

SIGN_RULE = "brightens"
"""+ raises the mean predicted brightness of the region; a tie makes the largest entry positive."""

LARGEST_ENTRY = "largest_entry"
"""+ makes the largest entry positive: the rule where nothing is predicted, as for PCA."""

TIE = 1e-3
"""Relative size below which a reference says nothing, and within which entries are equally large.

Wider than the rounding of float16 storage (2^-11), so a stored vector gives its own sign again
where two entries were equal.
"""


def brightness(u_N: Tensor) -> float:
    """The reference of SIGN_RULE, in [-1, 1]: net over total change of brightness that a left
    singular vector (the change of the predicted image in the region) makes; 0 for no change.
    """
    total = float(u_N.double().abs().sum())
    return float(u_N.double().sum()) / total if total > 0 else 0.0


def correlation(v_D: Tensor, reference_D: Tensor) -> float:
    """The cosine between the two, in [-1, 1]; 0 where one of them is zero."""
    v_D, reference_D = v_D.flatten().double(), reference_D.flatten().double()
    product = float(v_D.norm() * reference_D.norm())
    return float(v_D @ reference_D) / product if product > 0 else 0.0


def fixed_sign(v_D: Tensor, reference: float | None = None) -> float:
    """+1.0 or -1.0, the factor that gives `v` its sign.

    A `reference` (in [-1, 1], as `brightness` or a correlation) is made positive unless it is
    below TIE. Else the largest |entry| is; of entries within TIE of the largest, the first.
    """
    if reference is not None and abs(reference) > TIE:
        return 1.0 if reference > 0 else -1.0
    size_D = v_D.flatten().abs()
    first = int((size_D >= (1 - TIE) * size_D.max()).int().argmax())
    return -1.0 if float(v_D.flatten()[first]) < 0 else 1.0


def aligned_to(v_D: Tensor, reference_D: Tensor) -> Tensor:
    """`v` or -v, whichever has a positive cosine with the reference; by `fixed_sign` where the
    cosine is a tie.
    """
    return _sign_towards(v_D, reference_D) * v_D


def aligned_steps(V_SD: Tensor, timesteps: Sequence[int]) -> Tensor:
    """One direction at several timesteps, with signs that agree: each step is aligned to the one
    above it, whatever order the rows come in. (Haas et al. 2024 align every step to the highest,
    from which low steps are nearly orthogonal.)

    The row of the highest timestep keeps its sign: fix that first.

    Raises:
        ValueError: there is not one timestep for every row.
    """
    if len(timesteps) != len(V_SD):
        raise ValueError(
            f"aligning needs a timestep for each of the {len(V_SD)} rows, got {len(timesteps)}"
        )
    aligned_SD = V_SD.clone()
    order = sorted(range(len(V_SD)), key=lambda s: -timesteps[s])
    for above, step in pairwise(order):
        aligned_SD[step] = aligned_to(V_SD[step], aligned_SD[above])
    return aligned_SD


def matched_order(V_KD: Tensor, reference_KD: Tensor) -> list[int]:
    """`order` such that `V[order[k]]` belongs to `reference[k]`: the one-to-one matching with the
    largest summed |cosine|.

    Raises:
        ValueError: the two have different numbers of rows.
    """
    unit_KD = torch.nn.functional.normalize(V_KD.double(), dim=1)
    to_KD = torch.nn.functional.normalize(reference_KD.double(), dim=1)
    return best_assignment((to_KD @ unit_KD.T).abs())


def _sign_towards(v_D: Tensor, reference_D: Tensor) -> float:
    return fixed_sign(v_D, correlation(v_D, reference_D))
