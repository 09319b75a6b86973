"""Directions without what would change something else (LOCO Edit, Chen et al. 2024, algorithm 1;
Haas et al. 2024, eq. 12).

Shape suffixes: K directions, D entries of h or x, R directions to stay away from.
"""

from __future__ import annotations

import torch
from torch import Tensor

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


def _basis(null_RD: Tensor) -> Tensor:
    _, s_R, basis_RD = torch.linalg.svd(null_RD, full_matrices=False)
    kept_RD: Tensor = basis_RD[(s_R > _RANK_FLOOR * s_R[:1]) & (s_R > 0)]
    return kept_RD
