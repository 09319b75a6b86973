"""The baselines of `benchmarks.jacobian` against LAPACK on explicit matrices."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from benchmarks.costs import Network
from benchmarks.oracle import Exact, exact_svd, true_angle, value_error
from benchmarks.published import (
    SingularCoordinates,
    block_subspace,
    cheapest_block,
    cheapest_power,
    sequential_power,
)


class Explicit:
    """A linear map with its matrix at hand."""

    def __init__(self, J_ND: torch.Tensor) -> None:
        self.J_ND = J_ND
        self.domain = J_ND.shape[1]
        self.jvp_count = 0
        self.vjp_count = 0

    def jvp(self, V_KD: torch.Tensor) -> torch.Tensor:
        self.jvp_count += len(V_KD)
        return V_KD @ self.J_ND.T

    def vjp(self, U_KN: torch.Tensor) -> torch.Tensor:
        self.vjp_count += len(U_KN)
        return U_KN @ self.J_ND


def matrix(rows: int = 90, columns: int = 60, decay: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    values = torch.exp(-torch.arange(columns, dtype=torch.float64) / decay)
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    other = torch.randn(columns, columns, generator=generator, dtype=torch.float64)
    return (torch.linalg.qr(noise)[0] * values) @ torch.linalg.qr(other)[0]


MASK_N = (torch.arange(90) < 70).double()


@pytest.fixture
def exact() -> Exact:
    return exact_svd(matrix()[:70])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sequential_power_finds_the_leading_vectors_of_the_masked_rows(exact: Exact) -> None:
    jacobian = Explicit(matrix())
    found = sequential_power(jacobian, MASK_N, [400] * 3, tolerance=1e-15, generator=seeded())
    V_KD = np.linalg.svd(matrix()[:70].numpy())[2][:3]
    for row, truth in zip(found.V_KD.numpy(), V_KD, strict=True):
        assert abs(row @ truth) == pytest.approx(1, abs=1e-9)
    assert value_error(found.S_K, exact) < 1e-8
    assert jacobian.jvp_count == jacobian.vjp_count == sum(found.iterations)


def test_a_looser_tolerance_stops_sequential_power_earlier_and_farther_off(exact: Exact) -> None:
    runs = [
        sequential_power(
            Explicit(matrix()), MASK_N, [400] * 4, tolerance=tolerance, generator=seeded()
        )
        for tolerance in (1e-3, 1e-10)
    ]
    assert sum(runs[0].iterations) < sum(runs[1].iterations)
    assert true_angle(runs[0].V_KD, exact) > true_angle(runs[1].V_KD, exact)


@pytest.mark.parametrize("oversampling", [0, 5])
def test_block_subspace_iteration_stops_at_the_exact_subspace(
    exact: Exact, oversampling: int
) -> None:
    jacobian = Explicit(matrix())
    found = block_subspace(
        jacobian,
        MASK_N,
        4,
        oversampling=oversampling,
        done=lambda V_KD: true_angle(V_KD, exact) < 1e-8,
        max_iterations=200,
        generator=seeded(),
    )
    assert true_angle(found.V_KD, exact) < 1e-8
    assert value_error(found.S_K, exact) < 1e-10
    assert jacobian.jvp_count == jacobian.vjp_count == found.iterations[0] * (4 + oversampling)


def test_oversampling_saves_block_iterations(exact: Exact) -> None:
    plain, wide = (
        cheapest_block(exact.S_M, 4, 1e-4, oversampling=p, limit=200, seed=0) for p in (0, 5)
    )
    assert plain.reached
    assert wide.reached
    assert wide.found.iterations < plain.found.iterations


def test_singular_coordinates_take_the_iterations_of_the_whole_matrix(exact: Exact) -> None:
    # Each draws its own start, so the means over seeds are compared.
    whole, reduced = [], []
    for seed in range(12):
        common = {"tolerance": 1e-9, "limits": [400] * 3}
        for iterations, jacobian, mask in (
            (whole, Explicit(matrix()), MASK_N),
            (reduced, SingularCoordinates(exact.S_M), torch.ones_like(exact.S_M)),
        ):
            found = sequential_power(jacobian, mask, generator=seeded(seed), **common)
            iterations.append(sum(found.iterations))
    error = sqrt(np.var(whole) / 12 + np.var(reduced) / 12)
    assert abs(np.mean(whole) - np.mean(reduced)) < 4 * error + 1


def test_the_cheapest_power_run_meets_the_angle_and_says_so_when_it_cannot(exact: Exact) -> None:
    met = cheapest_power(exact.S_M, 3, 1e-3, limit=400, seed=1)
    assert met.reached
    assert met.angle <= 1e-3
    assert not cheapest_power(exact.S_M, 3, 1e-3, limit=2, seed=1).reached


def test_the_angle_is_the_largest_principal_one_of_scipy(exact: Exact) -> None:
    V_KD = exact.V_KD[:4] + 0.05 * torch.randn(4, 60, generator=seeded(2), dtype=torch.float64)
    largest = subspace_angles(V_KD.numpy().T, exact.V_KD[:4].numpy().T).max()
    assert true_angle(V_KD, exact) == pytest.approx(np.sin(largest), abs=1e-12)


def test_costs_follow_the_stated_model() -> None:
    parts = Network(decoder_flops=1e9, encoder=0.37)
    assert parts.power(100) == pytest.approx(437)
    assert parts.block(10, 5) == pytest.approx(10 * (5 + 5 + 2 + 0.37))
