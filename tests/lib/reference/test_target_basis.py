"""The basis of a wanted change, against the textbook's Krylov space and scipy's LSQR."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import lsqr
from torch import Tensor

from lib.discovery.subspace import AdjointError, NotFiniteError
from lib.reference.target_basis import target_basis

N, D = 40, 25


class Matrix:
    """A known matrix as a `LinearMap`."""

    def __init__(self, J_ND: Tensor, back_ND: Tensor | None = None) -> None:
        self._J_ND, self._back_ND = J_ND, J_ND if back_ND is None else back_ND
        self.domain = J_ND.shape[1]
        self.jvp_count = self.vjp_count = 0

    def jvp(self, V_KD: Tensor) -> Tensor:
        self.jvp_count += len(V_KD)
        return V_KD @ self._J_ND.T

    def vjp(self, U_KN: Tensor) -> Tensor:
        self.vjp_count += len(U_KN)
        return U_KN @ self._back_ND


@pytest.fixture
def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """A map with falling singular values, weights and a target, float64."""
    generator = torch.Generator().manual_seed(0)
    J_ND = torch.randn(N, D, generator=generator, dtype=torch.float64) * 0.8 ** torch.arange(D)
    weight_N = torch.rand(N, generator=generator, dtype=torch.float64) + 0.1
    return J_ND, weight_N, torch.randn(N, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_it_spans_the_krylov_space_of_the_target(
    drawn: tuple[Tensor, Tensor, Tensor], size: int
) -> None:
    J_ND, weight_N, target_N = drawn
    basis = target_basis(Matrix(J_ND), weight_N, target_N, size)
    J, W2 = J_ND.numpy(), np.diag(weight_N.numpy() ** 2)
    rows = [J.T @ W2 @ target_N.numpy()]
    while len(rows) < size:
        rows.append(J.T @ W2 @ J @ (rows[-1] / np.linalg.norm(rows[-1])))
    exact_DQ = np.linalg.qr(np.array(rows).T)[0]
    Q = basis.Q_QD.numpy()
    np.testing.assert_allclose(Q @ Q.T, np.eye(size), atol=1e-12)
    np.testing.assert_allclose(np.linalg.svd(Q @ exact_DQ)[1], 1, atol=1e-8)
    np.testing.assert_allclose(basis.JQ_QN.numpy(), Q @ J.T, atol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_least_squares_in_it_are_the_iterates_of_lsqr(
    drawn: tuple[Tensor, Tensor, Tensor], size: int
) -> None:
    J_ND, weight_N, target_N = drawn
    jacobian = Matrix(J_ND)
    basis = target_basis(jacobian, weight_N, target_N, size)
    A = (basis.JQ_QN * weight_N).numpy()
    wanted = (weight_N * target_N).numpy()
    c = np.linalg.lstsq(A.T, wanted, rcond=None)[0]
    expected = lsqr(
        weight_N.numpy()[:, None] * J_ND.numpy(), wanted, iter_lim=size, atol=0, btol=0
    )[0]
    np.testing.assert_allclose(c @ basis.Q_QD.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert (jacobian.jvp_count, jacobian.vjp_count) == (size, size)


def test_it_ends_where_the_target_answers_to_no_more_directions(
    drawn: tuple[Tensor, Tensor, Tensor],
) -> None:
    J_ND, weight_N, target_N = drawn
    J_ND = J_ND[:, :2] @ torch.randn(2, D, dtype=torch.float64)
    assert len(target_basis(Matrix(J_ND), weight_N, target_N, 10).Q_QD) == 2
    assert len(target_basis(Matrix(0 * J_ND), weight_N, target_N, 10).Q_QD) == 0
    assert len(target_basis(Matrix(J_ND), weight_N, 0 * target_N, 10).Q_QD) == 0


def test_wrong_products_are_refused(drawn: tuple[Tensor, Tensor, Tensor]) -> None:
    J_ND, weight_N, target_N = drawn
    with pytest.raises(AdjointError):
        target_basis(Matrix(J_ND, 1.1 * J_ND), weight_N, target_N, 3)
    with pytest.raises(NotFiniteError):
        target_basis(Matrix(J_ND * torch.nan), weight_N, target_N, 3)
