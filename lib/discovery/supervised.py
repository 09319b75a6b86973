"""Directions from labels (Haas et al. 2024, eq. 11): what h of the highest-scored samples has that
h of the lowest-scored has not. `lib.discovery.extremes` keeps those samples, shard by shard.

Shape suffixes: N samples of both sides, D entries of h (of all its steps), B a block of entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from lib.discovery.extremes import Extremes, contrasts

_BLOCK = 1 << 16
_STEPS = 200
_GRADIENT = 1e-10
_STALLED_GRADIENT = 1e-7
_ROUNDING = 1e-14
_SHORTEST_STEP = 1e-8


def mean_difference(e: Extremes) -> Tensor:
    """Mean h of the high samples minus mean h of the low ones, (D) float64, in units of h; the
    mean over the strata where the extremes are balanced (Haas et al. 2024, eq. 11).

    Raises:
        ValueError: one class only, or too few samples (see `extremes.contrasts`).
    """
    differences = [
        high.h_KD.double().mean(0) - low.h_KD.double().mean(0) for low, high in contrasts(e)
    ]
    return torch.stack(differences).mean(0)


def logistic(e: Extremes, l2: float) -> Tensor:
    """The weights of a logistic regression of high against low, (D) float64, per unit of h.

    Minimises sum_i w_i log(1 + exp(-y_i (beta . x_i + b))) + l2/2 |beta|^2 with x = (h - mean) / s,
    s the root mean square of |h - mean|: one scale for all entries, so `l2` means the same for
    every h. The weights w have mean 1 and give every side of every stratum the same total. Large
    `l2` turns the direction into that of `mean_difference`, small into that of the widest margin.

    Raises:
        ValueError: `l2` is not positive, or as `mean_difference`.
        ArithmeticError: Newton's iteration did not converge.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be positive, got {l2}: without it the weights are not unique")
    rows = _rows(e)
    mean_D = torch.cat([block_NB.mean(0) for block_NB in _blocks(rows.h_ND)])
    gram_NN = rows.h_ND.new_zeros(len(rows.h_ND), len(rows.h_ND), dtype=torch.float64)
    for block_NB, mean_B in zip(_blocks(rows.h_ND), mean_D.split(_BLOCK), strict=True):
        gram_NN += (block_NB - mean_B) @ (block_NB - mean_B).T
    scale = sqrt(float(gram_NN.trace()) / len(gram_NN))
    if scale == 0:
        raise ValueError("all samples have the same h: nothing tells the classes apart")
    alpha_N = _dual_weights(gram_NN / scale**2, rows.target_N, rows.weight_N, l2)
    return (
        torch.cat(
            [
                alpha_N @ (b - m)
                for b, m in zip(_blocks(rows.h_ND), mean_D.split(_BLOCK), strict=True)
            ]
        )
        / scale**2
    )


@dataclass(frozen=True, slots=True)
class _Rows:
    h_ND: Tensor
    target_N: Tensor
    """1 high, 0 low."""
    weight_N: Tensor


def _rows(e: Extremes) -> _Rows:
    sides = [(side, target) for pair in contrasts(e) for target, side in enumerate(pair)]
    total = sum(len(side.ids) for side, _ in sides)
    h_ND = torch.cat([side.h_KD for side, _ in sides])
    sizes = torch.tensor([len(side.ids) for side, _ in sides])
    targets = torch.tensor([float(target) for _, target in sides], dtype=torch.float64)
    shares = total / (len(sides) * sizes.double())
    return _Rows(h_ND, targets.repeat_interleave(sizes), shares.repeat_interleave(sizes))


def _blocks(h_ND: Tensor) -> Iterator[Tensor]:
    """Columns in float64, some at a time: h of many steps is wide."""
    return (block_NB.double() for block_NB in h_ND.split(_BLOCK, dim=1))


def _dual_weights(K_NN: Tensor, target_N: Tensor, weight_N: Tensor, l2: float) -> Tensor:
    """alpha with beta = X^T alpha, by Newton's method (iteratively reweighted least squares) in
    the N x N kernel form, steps halved until the objective falls.

    At the optimum alpha = w (target - p) / l2, and the free offset b makes alpha sum to 0.
    """
    identity_NN = torch.eye(len(K_NN), dtype=torch.float64)
    alpha_N = torch.zeros_like(target_N)
    offset = torch.zeros((), dtype=torch.float64)

    def objective(alpha_N: Tensor, offset: Tensor) -> float:
        z_N = K_NN @ alpha_N + offset
        loss_N = torch.nn.functional.softplus(z_N) - target_N * z_N
        return float(weight_N @ loss_N + l2 / 2 * alpha_N @ K_NN @ alpha_N)

    value = objective(alpha_N, offset)
    stalled = False
    for _ in range(_STEPS):
        z_N = K_NN @ alpha_N + offset
        p_N = torch.sigmoid(z_N)
        pull_N = weight_N * (target_N - p_N)
        residual = max(float((pull_N - l2 * alpha_N).abs().max()), abs(float(pull_N.sum())))
        if residual <= _GRADIENT or (stalled and residual <= _STALLED_GRADIENT):
            return alpha_N
        root_N = (weight_N * p_N * (1 - p_N)).clamp_min(1e-12).sqrt()
        # (K + l2 W^-1) alpha + b = z + W^-1 pull, symmetric in root = W^1/2; b from sum alpha = 0.
        solver = torch.linalg.cholesky(root_N[:, None] * K_NN * root_N + l2 * identity_NN)
        sides_N2 = torch.stack([root_N * z_N + pull_N / root_N, root_N], dim=1)
        solved_N2 = root_N[:, None] * torch.cholesky_solve(sides_N2, solver)
        next_offset = solved_N2[:, 0].sum() / solved_N2[:, 1].sum()
        next_alpha_N = solved_N2[:, 0] - next_offset * solved_N2[:, 1]
        step = 1.0
        while True:
            try_alpha_N = alpha_N + step * (next_alpha_N - alpha_N)
            try_offset = offset + step * (next_offset - offset)
            tried = objective(try_alpha_N, try_offset)
            if tried <= value + _ROUNDING * abs(value) or step < _SHORTEST_STEP:
                break
            step /= 2
        stalled = tried >= value
        alpha_N, offset, value = try_alpha_N, try_offset, tried
    raise ArithmeticError(
        f"the logistic regression did not converge in {_STEPS} steps (residual {residual:.1e});"
        " a larger l2 helps"
    )
