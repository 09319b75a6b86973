"""Weighted k-means in float64, for centres that stand for many points (Lloyd 1982; starts by
k-means++, Arthur & Vassilvitskii 2007).

Shape suffixes: M weighted points, D their entries, K centres.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CHUNK = 4096
"""Points compared at once with all centres."""


def spread_out(x_MD: Tensor, weight_M: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """k-means++: each next centre by chance in proportion to weight and squared distance."""
    chance_M, chosen = weight_M, []
    away_M = torch.full_like(weight_M, float("inf"))
    for _ in range(count):
        pick = int(torch.multinomial(chance_M / chance_M.sum(), 1, generator=generator))
        chosen.append(pick)
        away_M = torch.minimum(away_M, ((x_MD - x_MD[pick]) ** 2).sum(1))
        chance_M = weight_M * away_M
    return x_MD[chosen]


def lloyd(
    x_MD: Tensor, weight_M: Tensor, centres_KD: Tensor, rounds: int
) -> tuple[Tensor, Tensor, float]:
    """Centres, the nearest of every point, and the weighted sum of squared distances. A centre that
    loses all its points stays where it is.
    """
    nearest_M, away_M = _nearest(x_MD, centres_KD)
    for _ in range(rounds):
        weight_K, mean_KD = means(x_MD, weight_M, nearest_M, len(centres_KD))
        centres_KD = torch.where(weight_K[:, None] > 0, mean_KD, centres_KD)
        before_M = nearest_M
        nearest_M, away_M = _nearest(x_MD, centres_KD)
        if torch.equal(nearest_M, before_M):
            break
    return centres_KD, nearest_M, float((weight_M * away_M).sum())


def means(x_MD: Tensor, weight_M: Tensor, nearest_M: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Weight and mean of the points of every centre; 0 where it has none."""
    weight_K = weight_M.new_zeros(count).index_add_(0, nearest_M, weight_M)
    sum_KD = x_MD.new_zeros(count, x_MD.shape[1])
    sum_KD.index_add_(0, nearest_M, weight_M[:, None] * x_MD)
    return weight_K, sum_KD / weight_K.clamp_min(1e-30)[:, None]


def _nearest(x_MD: Tensor, centres_KD: Tensor) -> tuple[Tensor, Tensor]:
    indices, values = [], []
    for part_MD in x_MD.split(_CHUNK):
        square_MK = (centres_KD**2).sum(1) - 2 * part_MD @ centres_KD.T
        least_M, index_M = square_MK.min(dim=1)
        indices.append(index_M)
        values.append(least_M + (part_MD**2).sum(1))
    return torch.cat(indices), torch.cat(values).clamp_min(0)
