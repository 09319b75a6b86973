"""Principal components of h over a dataset, from sums that merge (Haas et al. 2024).

Every shard leaves a mean and a thin factor of its scatter matrix; merging two is exact, so the
components do not depend on who counted what. All runs on small Gram matrices: nothing of size D x
D is ever made. Components over all timesteps jointly are those of the flattened (S*D) rows.

Shape suffixes: N samples, D entries of h (of all its steps), R kept rows, K components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lib.discovery.signs import fixed_sign

_ROUNDING = 1e-14
"""Relative squared singular value below which a row is rounding of the Gram matrix."""
_RANK_FLOOR = 1e-10
"""Relative variance below which a component is none: its direction is rounding."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and scatter of some samples."""

    count: int
    mean_D: Tensor
    """float64, CPU."""
    factor_RD: Tensor
    """Orthogonal rows, longest first, float64: factor^T factor is the scatter matrix, the sum of
    (h - mean)(h - mean)^T.
    """
    discarded: float
    """Squared energy, as a part of the trace of the scatter matrix, that the cut to a rank lost
    here and in all parts. Where it is 0 everything else is exact.
    """


def moments(h_ND: Tensor, rank: int) -> Moments:
    """Of the rows of one shard, any float dtype; at most `rank` rows are kept.

    Raises:
        ValueError: h is not finite.
    """
    if not bool(torch.isfinite(h_ND).all()):
        raise ValueError("the principal components need finite h, got NaN or infinity")
    rows_ND = h_ND.detach().double().cpu()
    if not len(rows_ND):
        return Moments(0, rows_ND.new_zeros(rows_ND.shape[1]), rows_ND, 0.0)
    mean_D = rows_ND.mean(0)
    factor_RD, cut = _compressed(rows_ND - mean_D, rank)
    return Moments(len(rows_ND), mean_D, factor_RD, cut)


def merged(parts: Sequence[Moments], rank: int) -> Moments:
    """Of all samples of the parts, added up in the given order (Chan, Golub and LeVeque 1979: the
    scatter of a union is the sum of both and a rank-one term of the means).

    Exact where at most `rank` dimensions vary; else the weakest are cut after each part and their
    energy is added to `discarded`.

    Raises:
        ValueError: there is no part, or the parts have different widths.
    """
    if not parts:
        raise ValueError("merging moments needs at least one part, got none")
    widths = sorted({len(p.mean_D) for p in parts})
    if len(widths) > 1:
        raise ValueError(f"moments of one width are expected, got widths {widths}")
    total = parts[0]
    for part in parts[1:]:
        total = _pair(total, part, rank)
    factor_RD, cut = _compressed(total.factor_RD, rank)
    return Moments(total.count, total.mean_D, factor_RD, total.discarded + cut)


def components(m: Moments, count: int) -> tuple[Tensor, Tensor]:
    """The leading principal components: unit rows (K, D) and the standard deviation along each
    (K), float64, falling. The largest entry of each is positive (`signs.fixed_sign`).

    K is smaller than `count` where fewer dimensions vary.

    Raises:
        ValueError: there are fewer than two samples, or they are all equal.
    """
    if m.count < 2:
        raise ValueError(f"principal components need at least 2 samples, got {m.count}")
    length_R = m.factor_RD.norm(dim=1)
    spread = float(length_R[0]) if len(length_R) else 0.0
    # Equal samples leave the rounding of their mean.
    if spread <= 1e-14 * sqrt(m.count) * float(m.mean_D.norm()):
        raise ValueError(f"all {m.count} samples have the same h: nothing varies")
    kept = min(count, int((length_R**2 > _RANK_FLOOR * spread**2).sum()))
    V_KD = m.factor_RD[:kept] / length_R[:kept, None]
    signs_K = V_KD.new_tensor([fixed_sign(v_D) for v_D in V_KD])
    return signs_K[:, None] * V_KD, length_R[:kept] / sqrt(m.count - 1)


def to_arrays(m: Moments) -> dict[str, NDArray[np.generic]]:
    """For storage; `from_arrays` gives the same bits back."""
    return {
        "count": np.array([m.count], dtype=np.int64),
        "mean": m.mean_D.numpy(),
        "factor": m.factor_RD.contiguous().numpy(),
        "discarded": np.array([m.discarded], dtype=np.float64),
    }


def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Moments:
    """What `to_arrays` stored."""
    return Moments(
        int(arrays["count"][0]),
        torch.from_numpy(np.array(arrays["mean"], dtype=np.float64)),
        torch.from_numpy(np.array(arrays["factor"], dtype=np.float64)),
        float(arrays["discarded"][0]),
    )


def _pair(a: Moments, b: Moments, rank: int) -> Moments:
    if not a.count or not b.count:
        return a if a.count else b
    count = a.count + b.count
    apart_D = b.mean_D - a.mean_D
    between_1D = sqrt(a.count / count * b.count) * apart_D[None]
    factor_RD, cut = _compressed(torch.cat([a.factor_RD, b.factor_RD, between_1D]), rank)
    mean_D = a.mean_D + apart_D * (b.count / count)
    return Moments(count, mean_D, factor_RD, a.discarded + b.discarded + cut)


def _compressed(rows_ND: Tensor, rank: int) -> tuple[Tensor, float]:
    """Orthogonal rows with the same product rows^T rows, at most `rank`, and the energy cut."""
    if not len(rows_ND):
        return rows_ND, 0.0
    energy_N, W_NN = torch.linalg.eigh(rows_ND @ rows_ND.T)
    energy_N, W_NN = energy_N.flip(0), W_NN.flip(1)
    real = int((energy_N > _ROUNDING * energy_N[0].clamp_min(0)).sum())
    kept = min(rank, real)
    return W_NN[:, :kept].T @ rows_ND, float(energy_N[kept:real].clamp_min(0).sum())
