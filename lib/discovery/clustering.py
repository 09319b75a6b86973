"""Sign-invariant clustering: the directions of many images, merged where they are one direction.

A direction is a line: v and -v are the same. The result depends on the rows and their order alone;
callers sort rows by strength, so that the strongest lead.
Shape suffixes: N directions (rows of unit norm), D entries of h, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, radians

import numpy as np
import torch
from torch import Tensor

_ROWS, _LEADERS, _COLUMNS = 1024, 8192, 128
"""What is compared or summed at once: an N x N matrix never exists."""
_MAX_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Cluster:
    """Lines that are near one another."""

    members: tuple[int, ...]
    """Rows, ascending."""
    mean_D: Tensor
    """Unit norm, float32, on the side of the first member."""
    spread: float
    """Mean sine of the angle between the mean and the members."""


def clusters(
    v_ND: Tensor, angle_degrees: float, *, weight_N: Tensor | None = None
) -> tuple[Cluster, ...]:
    """Leader clustering by |cos|; then means of sign-aligned members, merged where they are within
    the angle of each other, and all rows assigned anew, until nothing changes (20 rounds at most).
    `angle_degrees` is the largest angle between a row and the mean that it belongs to.

    Every row is in exactly one cluster, the nearest within the angle; rows that are near
    nothing are clusters of one. `v_ND` is float32; `weight_N` counts a row so many times in the
    means. Clusters come in the order of their first rows. Memory beside `v_ND`: K x D.
    """
    least = cos(radians(angle_degrees))
    weight_N = torch.ones(len(v_ND)) if weight_N is None else weight_N.float()
    # Rows at one angle from a mean, each its own way, have the squared cosine between them.
    assigned_N = _leaders(v_ND, least**2)
    reference_KD = v_ND[_first_rows(assigned_N)]
    for _ in range(_MAX_ROUNDS):
        sum_KD = _sums(v_ND, assigned_N, reference_KD, weight_N)
        mean_KD = _unit(_joined(sum_KD, least))
        now_N, reference_KD = _nearest(v_ND, mean_KD, least)
        if torch.equal(now_N, assigned_N):
            break
        assigned_N = now_N
    mean_KD = _unit(_sums(v_ND, assigned_N, reference_KD, weight_N))
    first_K = _first_rows(assigned_N)
    mean_KD = _side(v_ND[first_K], mean_KD)[:, None] * mean_KD
    sine_N = (1 - _cosines(v_ND, mean_KD, assigned_N).double() ** 2).clamp_min(0).sqrt()
    members: list[list[int]] = [[] for _ in first_K]
    for row, cluster in enumerate(assigned_N.tolist()):
        members[cluster].append(row)
    return tuple(
        Cluster(tuple(rows), mean_D, float(sine_N[rows].mean()))
        for rows, mean_D in zip(members, mean_KD, strict=True)
    )


def _leaders(v_ND: Tensor, least: float) -> Tensor:
    """Row -> leader, int64: in order, a row joins the nearest leader within the angle, or leads."""
    assigned_N = torch.empty(len(v_ND), dtype=torch.int64)
    rows_of_leaders: list[int] = []
    for begin in range(0, len(v_ND), _ROWS):
        block_BD = v_ND[begin : begin + _ROWS]
        nearest_B, cosine_B = _best(block_BD, v_ND, rows_of_leaders)
        open_ = torch.nonzero(cosine_B < least)[:, 0]
        assigned_N[begin : begin + _ROWS] = nearest_B
        gram_OO = (block_BD[open_] @ block_BD[open_].T).abs().numpy()
        before, own = len(rows_of_leaders), list[int]()
        for place, row in enumerate(open_.tolist()):
            cosines = gram_OO[place, own]
            if own and cosines.max() >= least:
                assigned_N[begin + row] = before + int(cosines.argmax())
            else:
                assigned_N[begin + row] = before + len(own)
                own.append(place)
                rows_of_leaders.append(begin + row)
    return assigned_N


def _best(block_BD: Tensor, v_ND: Tensor, chosen: list[int]) -> tuple[Tensor, Tensor]:
    """Position in `chosen` of the row of `v_ND` nearest to each of the block, and |cos|; (0, -1)
    where there is none to choose.
    """
    best_B = torch.zeros(len(block_BD), dtype=torch.int64)
    cosine_B = torch.full((len(block_BD),), -1.0)
    for begin in range(0, len(chosen), _LEADERS):
        leaders_KD = v_ND[chosen[begin : begin + _LEADERS]]
        found_B, place_B = (block_BD @ leaders_KD.T).abs().max(1)
        better_B = found_B > cosine_B
        best_B = torch.where(better_B, place_B + begin, best_B)
        cosine_B = torch.where(better_B, found_B, cosine_B)
    return best_B, cosine_B


def _nearest(v_ND: Tensor, mean_KD: Tensor, least: float) -> tuple[Tensor, Tensor]:
    """(row -> cluster, reference of each cluster): the nearest mean within the angle; what is left
    leads clusters of its own. Numbered by first rows.
    """
    every = list(range(len(mean_KD)))
    found = [
        _best(v_ND[begin : begin + _ROWS], mean_KD, every) for begin in range(0, len(v_ND), _ROWS)
    ]
    assigned_N = torch.cat([best_B for best_B, _ in found])
    left = torch.nonzero(torch.cat([cosine_B for _, cosine_B in found]) < least)[:, 0]
    references = mean_KD
    if len(left):
        led_L = _leaders(v_ND[left], least)
        assigned_N[left] = len(mean_KD) + led_L
        references = torch.cat([mean_KD, v_ND[left][_first_rows(led_L)]])
    used, compact_N = torch.unique(assigned_N, return_inverse=True)
    order_K = torch.argsort(_first_rows(compact_N))
    return torch.argsort(order_K)[compact_N], references[used[order_K]]


def _joined(sum_KD: Tensor, least: float) -> Tensor:
    """Sums added up, on one side, where their means are within the angle of each other."""
    mean_KD = _unit(sum_KD)
    joined_K = _leaders(mean_KD, least)
    leader_KD = mean_KD[_first_rows(joined_K)]
    return _sums(sum_KD, joined_K, leader_KD, torch.ones(len(sum_KD)))


def _sums(v_ND: Tensor, assigned_N: Tensor, reference_KD: Tensor, weight_N: Tensor) -> Tensor:
    """Weighted sum of every cluster's rows, each turned to the side of the reference; float32 from
    float64.
    """
    cosine_N = _cosines(v_ND, reference_KD, assigned_N)
    factor_N = (weight_N * torch.where(cosine_N < 0, -1.0, 1.0)).double()
    total_KD = torch.empty(len(reference_KD), v_ND.shape[1])
    for begin in range(0, v_ND.shape[1], _COLUMNS):
        part_NC = v_ND[:, begin : begin + _COLUMNS].double() * factor_N[:, None]
        sum_KC = torch.zeros(len(reference_KD), part_NC.shape[1], dtype=torch.float64)
        total_KD[:, begin : begin + _COLUMNS] = sum_KC.index_add_(0, assigned_N, part_NC).float()
    return total_KD


def _cosines(v_ND: Tensor, reference_KD: Tensor, assigned_N: Tensor) -> Tensor:
    """Inner product of every row with its cluster's reference, (N,)."""
    return torch.cat(
        [
            (v_ND[begin : begin + _ROWS] * reference_KD[assigned_N[begin : begin + _ROWS]]).sum(1)
            for begin in range(0, len(v_ND), _ROWS)
        ]
    )


def _side(first_KD: Tensor, mean_KD: Tensor) -> Tensor:
    return torch.where((first_KD * mean_KD).sum(1) < 0, -1.0, 1.0)


def _first_rows(assigned_N: Tensor) -> Tensor:
    """The first row of every cluster, by cluster number."""
    return torch.from_numpy(np.unique(assigned_N.numpy(), return_index=True)[1])


def _unit(v_KD: Tensor) -> Tensor:
    unit_KD: Tensor = v_KD / v_KD.norm(dim=1, keepdim=True)
    return unit_KD
