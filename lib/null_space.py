"""Directions without what would change something else (LOCO Edit, Chen et al. 2024, algorithm 1;
Haas et al. 2024, eq. 12).

Shape suffixes: K directions, D entries of h or x, R directions to stay away from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.golub_kahan import Spectrum
from lib.region_problem import RegionProblem, Search, answered
from lib.subspace import top_directions

_COMPLEMENT_TOLERANCE = 0.5
"""Of the null space's angle: its last directions hardly matter and their gap is next to none."""

_RANK_FLOOR = 1e-6
_LEFT = 1e-6
"""Length of what is left, relative to the direction, below which it is rounding."""


def without(V_KD: Tensor, null_RD: Tensor) -> Tensor:
    """(I - N^T (N N^T)^-1 N) v for every row, of unit norm again, in the dtype of V.

    The rows of `null` need not be orthogonal, of unit norm or independent; those below 1e-6 of
    the strongest singular value count as dependent. Rows of the result are orthogonal to `null`,
    no longer to each other.

    Raises:
        ValueError: a row lies in the span of `null`, or the widths differ.
    """
    if V_KD.shape[1] != null_RD.shape[1]:
        raise ValueError(
            f"directions of {V_KD.shape[1]} entries cannot be projected away from directions of"
            f" {null_RD.shape[1]}"
        )
    rows_KD = V_KD.double()
    basis_RD = _basis(null_RD.double())
    left_KD = rows_KD
    for _ in range(2):  # once more: cancellation leaves rounding along the span
        left_KD = left_KD - left_KD @ basis_RD.T @ basis_RD
    length_K = left_KD.norm(dim=1)
    gone = (length_K <= _LEFT * rows_KD.norm(dim=1)).nonzero().flatten().tolist()
    if gone:
        raise ValueError(
            f"direction {gone[0]} of {len(V_KD)} lies in the span of the {len(null_RD)} directions"
            " to project out: nothing is left of it"
        )
    unit_KD: Tensor = left_KD / length_K[:, None]
    return unit_KD.to(V_KD)


def null_space_directions(
    problem: RegionProblem, search: Search, null_rank: int
) -> tuple[Spectrum, ...]:
    """The masked Jacobian's directions without the `null_rank` strongest of the rest of the image
    (LOCO Edit, algorithm 1, for h or x_t).

    Raises:
        ValueError: a region's directions lie wholly in the null space of its complement.
    """
    regions = len(problem.masks_RN)
    generator = problem.generator()
    found = top_directions(
        problem.jacobian,
        problem.masks_RN,
        [search.count] * regions,
        tolerance=search.tolerance,
        max_rounds=search.max_rounds,
        generator=generator,
        start=problem.start,
    )
    rest = top_directions(
        problem.jacobian,
        1 - problem.masks_RN,
        [null_rank] * regions,
        tolerance=_COMPLEMENT_TOLERANCE,
        max_rounds=search.max_rounds + 2 * null_rank,
        generator=generator,
    )
    basis = found.basis.extended(rest.basis.Q_QD, rest.basis.JQ_QN)
    answers = []
    for mask_N, own, outside in zip(problem.masks_RN, found.spectra, rest.spectra, strict=True):
        V_KD = without(own.V_KD, outside.V_KD) if len(outside.V_KD) else own.V_KD
        answers.append(answered(V_KD, basis, mask_N, own))
    return tuple(answers)


def _basis(null_RD: Tensor) -> Tensor:
    _, s_R, basis_RD = torch.linalg.svd(null_RD, full_matrices=False)
    kept_RD: Tensor = basis_RD[(s_R > _RANK_FLOOR * s_R[:1]) & (s_R > 0)]
    return kept_RD
