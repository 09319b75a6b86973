"""Directions without what would change something else (LOCO Edit, Chen et al. 2024, algorithm 1;
Haas et al. 2024, eq. 12).

Shape suffixes: K directions, D entries of h or x, R directions to stay away from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.discovery.golub_kahan import Spectrum
from lib.discovery.region_problem import RegionProblem, Search, answered
from lib.discovery.subspace import Subspaces, top_directions

_COMPLEMENT_TOLERANCE = 0.5
"""Of the null space's angle: its last directions hardly matter and their gap is next to none."""
_COMPLEMENT_ROUNDS = 2
"""More rounds for every direction of a null space than a search for a few is given."""

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
        ValueError: a direction of a region lies wholly in the span of those of the rest.
        NotFiniteError, AdjointError: as `top_directions`.
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
    rest = complements(problem, null_rank, search.max_rounds, generator)
    basis = found.basis.extended(rest.basis.Q_QD, rest.basis.JQ_QN)
    answers = []
    for r, (own, outside) in enumerate(zip(found.spectra, rest.spectra, strict=True)):
        try:
            V_KD = without(own.V_KD, outside.V_KD)
        except ValueError as error:
            raise ValueError(f"region {problem.names[r]}: {error}") from error
        answers.append(answered(V_KD, basis, problem.masks_RN[r], own))
    return tuple(answers)


def complements(
    problem: RegionProblem, rank: int, max_rounds: int, generator: torch.Generator
) -> Subspaces:
    """The `rank` strongest directions of every region's complement, diag(1 - m) J, roughly: the
    space to stay away from. None where a region is the whole image.
    """
    return top_directions(
        problem.jacobian,
        1 - problem.masks_RN,
        [rank] * len(problem.masks_RN),
        tolerance=_COMPLEMENT_TOLERANCE,
        max_rounds=max_rounds + _COMPLEMENT_ROUNDS * rank,
        generator=generator,
    )


def _basis(null_RD: Tensor) -> Tensor:
    _, s_R, basis_RD = torch.linalg.svd(null_RD, full_matrices=False)
    kept_RD: Tensor = basis_RD[(s_R > _RANK_FLOOR * s_R[:1]) & (s_R > 0)]
    return kept_RD
