"""JIVE: what the Jacobians of all regions share, and what each has for itself (Lock et al. 2013;
Kouzelis et al. 2024, algorithm 3).

A region's Jacobian comes as its thin right factor X = S V^T; its left vectors cancel out of
everything here. The blocks share the h axis: X_r = J_r + A_r + rest, all J_r in one joint space of
h, A_r orthogonal to that space (but not to each other). Ranks can be found by `jive_ranks`.

Shape suffixes: K rows of a block, D entries of h, M coordinates in the blocks' own span, R joint
directions, T all rows of all blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NOTHING = 1e-10
"""Relative size below which an individual row is rounding."""


@dataclass(frozen=True, slots=True)
class Jive:
    """A joint space and the individual directions of each block, float64."""

    joint_RD: Tensor
    """Orthonormal rows, strongest first."""
    individual: tuple[Tensor, ...]
    """Of each block rows (K, D), singular value times right vector, strongest first, orthogonal to
    the joint space.
    """
    iterations: int
    converged: bool
    residual: float
    """Frobenius norm of what is left, relative to that of the blocks."""


def jive(
    blocks: Sequence[Tensor],
    joint_rank: int,
    individual_ranks: Sequence[int],
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
) -> Jive:
    """Minimises sum_r |X_r - J_r - A_r|^2 by alternating singular value decompositions.

    Blocks are (K_r, D) rows, any float dtype, one device. All iterations run on coordinates in the
    span of all rows, which holds every iterate, so the result is that of the full blocks at the
    cost of matrices of sum(K_r) columns. Stops when the residual changes by at most `tolerance` of
    the blocks' norm. The blocks count by their size; scale them first where they should not.

    An individual part of lower rank than asked for has fewer rows.

    Raises:
        ValueError: a rank is negative or larger than what the blocks hold, or the blocks differ in
            width, are zero or are not finite.
    """
    basis_MD = span(blocks)
    _check_ranks(blocks, len(basis_MD), joint_rank, individual_ranks)
    reduced = [block.double() @ basis_MD.T for block in blocks]
    norm = float(torch.cat(reduced).norm())
    if not norm > 0:
        raise ValueError("all blocks are zero: no direction is joint or individual")
    parts = [torch.zeros_like(x_KM) for x_KM in reduced]
    residual, iterations, converged = 1.0, 0, False
    joint_RM = basis_MD.new_zeros(joint_rank, len(basis_MD))
    while not converged and iterations < max_iterations:
        rest_TM = torch.cat([x_KM - a_KM for x_KM, a_KM in zip(reduced, parts, strict=True)])
        joint_RM = torch.linalg.svd(rest_TM, full_matrices=False).Vh[:joint_rank]
        own = [_without(x_KM, joint_RM) for x_KM in reduced]
        parts = [_truncated(x_KM, k) for x_KM, k in zip(own, individual_ranks, strict=True)]
        # What the joint space explains of X - A; A itself is orthogonal to it.
        left_TM = _without(torch.cat(reduced) - torch.cat(parts), joint_RM)
        before, residual = residual, float(left_TM.norm()) / norm
        iterations += 1
        converged = abs(before - residual) <= tolerance
    individual = tuple(
        _strong_rows(_without(x_KM, joint_RM), k, norm) @ basis_MD
        for x_KM, k in zip(reduced, individual_ranks, strict=True)
    )
    return Jive(joint_RM @ basis_MD, individual, iterations, converged, residual)


def span(blocks: Sequence[Tensor]) -> Tensor:
    """Orthonormal rows, float64, whose span holds every row of every block.

    Raises:
        ValueError: there is no block, or the blocks differ in width or are not finite.
    """
    widths = sorted({block.shape[1] for block in blocks})
    if len(widths) != 1:
        raise ValueError(f"blocks of one width are expected, got widths {widths}")
    rows_TD = torch.cat([block.double() for block in blocks])
    if not bool(torch.isfinite(rows_TD).all()):
        raise ValueError("a block is NaN or infinite")
    basis_DM: Tensor = torch.linalg.qr(rows_TD.T).Q
    return basis_DM.T


def _check_ranks(
    blocks: Sequence[Tensor], width: int, joint_rank: int, individual_ranks: Sequence[int]
) -> None:
    if not 0 <= joint_rank <= width:
        raise ValueError(
            f"the joint rank must lie in 0..{width}, the blocks' span, got {joint_rank}"
        )
    if len(individual_ranks) != len(blocks):
        raise ValueError(f"{len(blocks)} blocks need as many ranks, got {len(individual_ranks)}")
    for block, rank in zip(blocks, individual_ranks, strict=True):
        if not 0 <= rank <= len(block):
            raise ValueError(f"a block of {len(block)} rows cannot have the individual rank {rank}")


def _without(x_KM: Tensor, joint_RM: Tensor) -> Tensor:
    return x_KM - x_KM @ joint_RM.T @ joint_RM


def _truncated(x_KM: Tensor, rank: int) -> Tensor:
    u_KK, s_K, v_KM = torch.linalg.svd(x_KM, full_matrices=False)
    cut_KM: Tensor = (u_KK[:, :rank] * s_K[:rank]) @ v_KM[:rank]
    return cut_KM


def _strong_rows(x_KM: Tensor, rank: int, norm: float) -> Tensor:
    _, s_K, v_KM = torch.linalg.svd(x_KM, full_matrices=False)
    kept = min(rank, int((s_K > _NOTHING * norm).sum()))
    rows_KM: Tensor = s_K[:kept, None] * v_KM[:kept]
    return rows_KM
