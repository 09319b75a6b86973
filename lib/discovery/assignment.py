"""The best one-to-one matching of two small sets, needed where directions of different steps or
images must be paired before they can be aligned.

Shape suffixes: K things on either side.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_assignment(gain_KK: Tensor) -> list[int]:
    """For every row the column it is matched with, so that the summed gain is largest.

    The Hungarian method with potentials (Kuhn 1955; Jonker and Volgenant 1987), O(K^3), exact. Of
    equally good matchings the one found depends on the order.

    Raises:
        ValueError: the matrix is not square, or not finite.
    """
    size = len(gain_KK)
    if gain_KK.shape != (size, size) or not bool(torch.isfinite(gain_KK).all()):
        raise ValueError(
            f"a matching needs a square matrix of finite gains, got {tuple(gain_KK.shape)}"
        )
    cost_KK = -gain_KK.detach().double().cpu()
    row_potential_K = torch.zeros(size, dtype=torch.float64)
    column_potential_K = torch.zeros(size, dtype=torch.float64)
    row_of = [-1] * size
    for row in range(size):
        # A shortest augmenting path from `row` to a free column, by reduced costs.
        distance_K = torch.full((size,), torch.inf, dtype=torch.float64)
        before = [-1] * size
        seen_K = torch.zeros(size, dtype=torch.bool)
        current, column, reached = row, -1, 0.0
        while True:
            through_K = reached + cost_KK[current] - row_potential_K[current] - column_potential_K
            shorter_K = (through_K < distance_K) & ~seen_K
            distance_K = torch.where(shorter_K, through_K, distance_K)
            for index in shorter_K.nonzero().flatten().tolist():
                before[index] = column
            column = int(torch.where(seen_K, torch.inf, distance_K).argmin())
            reached = float(distance_K[column])
            seen_K[column] = True
            if row_of[column] < 0:
                break
            current = row_of[column]
        row_potential_K[row] += reached
        for index in seen_K.nonzero().flatten().tolist():
            shift = reached - float(distance_K[index])
            column_potential_K[index] -= shift
            if index != column:
                row_potential_K[row_of[index]] += shift
        while column >= 0:
            row_of[column] = row if before[column] < 0 else row_of[before[column]]
            column = before[column]
    column_of = [0] * size
    for column, matched in enumerate(row_of):
        column_of[matched] = column
    return column_of
