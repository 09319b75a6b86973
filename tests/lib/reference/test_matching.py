"""Gauss-Newton with edits in the loop, against least squares by numpy and scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from torch import Tensor

from lib.reference.matching import RIDGE, Weights, matched

N, Q = 60, 5


@pytest.fixture
def response_QN() -> Tensor:  # noqa: N802, a tensor
    return torch.randn(Q, N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def weights(response_QN: Tensor) -> Weights:
    """Of a target that the responses reach in part."""
    generator = torch.Generator().manual_seed(2)
    mask_N = torch.zeros(N, dtype=torch.float64)
    mask_N[:20], mask_N[20:25] = 1.0, 0.5
    reached_N = torch.randn(Q, generator=generator, dtype=torch.float64) @ response_QN
    noise_N = torch.randn(N, generator=generator, dtype=torch.float64)
    return Weights(reached_N + 0.5 * noise_N, mask_N, outside=0.5)


def weighted(weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """The weights and the wanted change, written out."""
    m = weights.mask_N.numpy()
    weight = np.sqrt(m**2 + 0.5 * (1 - m) ** 2)
    return weight, weight * m * weights.target_N.numpy()


@pytest.mark.parametrize("answer", [1.0, 0.01, 40.0])
def test_where_edits_are_linear_it_is_the_least_squares_solution_whatever_their_size(
    response_QN: Tensor, weights: Weights, answer: float
) -> None:
    found = matched(
        response_QN, weights, lambda c_TQ: answer * c_TQ @ response_QN, scale=1.0, rounds=8
    )
    weight, wanted = weighted(weights)
    A = (response_QN.numpy() * weight).T
    c = np.linalg.lstsq(A, wanted, rcond=None)[0]
    np.testing.assert_allclose(found.c_Q.numpy() * answer, c, rtol=0.02, atol=0.01)
    explained = 1 - ((A @ c - wanted) ** 2).sum() / (wanted**2).sum()
    assert found.explained == pytest.approx(explained, abs=1e-4)
    assert found.linear == pytest.approx(explained, abs=2 * RIDGE)
    assert found.converged


def test_where_edits_bend_it_finds_what_a_nonlinear_solver_with_derivatives_finds(
    response_QN: Tensor, weights: Weights
) -> None:
    mixed_QQ = torch.eye(Q, dtype=torch.float64) + 0.3 * torch.randn(
        Q, Q, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )

    def edit(c_TQ: Tensor) -> Tensor:
        linear_TN = c_TQ @ mixed_QQ @ response_QN
        return 2 * torch.tanh(linear_TN / 2) + 0.1 * linear_TN**2

    found = matched(response_QN, weights, edit, scale=1.0, rounds=20)
    weight, wanted = weighted(weights)

    def residual(c: np.ndarray) -> np.ndarray:
        changed: np.ndarray = edit(torch.from_numpy(c)[None])[0].numpy() * weight - wanted
        return changed

    best = least_squares(residual, np.zeros(Q), xtol=1e-12)
    explained = 1 - 2 * best.cost / (wanted**2).sum()
    assert 0.95 * explained < found.explained <= explained + 1e-6
    assert found.explained > 0.1


def test_outside_the_region_a_change_costs_and_is_not_wanted(response_QN: Tensor) -> None:
    mask_N = torch.zeros(N, dtype=torch.float64)
    mask_N[:20] = 1
    target_N = torch.randn(N, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def outside(mu: float) -> float:
        weights = Weights(target_N, mask_N, mu)
        found = matched(response_QN, weights, lambda c_TQ: c_TQ @ response_QN, scale=1.0, rounds=6)
        return float(((1 - mask_N) * (found.c_Q @ response_QN)).norm())

    changes = [outside(mu) for mu in (0.01, 0.3, 10.0)]
    assert changes[0] > 1.2 * changes[1] > 1.5 * changes[2]


@pytest.mark.parametrize("edit", ["nothing", "away"])
def test_edits_that_bring_the_image_no_nearer_are_refused(
    response_QN: Tensor, weights: Weights, edit: str
) -> None:
    def apply(c_TQ: Tensor) -> Tensor:
        away_TN = -weights.mask_N * weights.target_N * c_TQ.norm(dim=1)[:, None]
        return away_TN if edit == "away" else 0 * away_TN

    with pytest.raises(ValueError, match="no edit brings the region nearer"):
        matched(response_QN, weights, apply, scale=1.0, rounds=4)
