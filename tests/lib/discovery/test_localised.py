"""The most local directions against the dense generalised eigenproblem in float64."""

import numpy as np
import pytest
import scipy.linalg
import torch

from lib.discovery.golub_kahan import Spectrum
from lib.discovery.localised import local_directions, localised_in
from lib.discovery.subspace import NotFiniteError

D, N = 60, 90


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


def smooth() -> torch.Tensor:
    """Rows respond to entries near them, more weakly with distance, as in a decoder."""
    rows, columns = torch.arange(N)[:, None] / N, torch.arange(D)[None] / D
    noise = torch.randn(N, D, generator=torch.Generator().manual_seed(0))
    return torch.exp(-(((rows - columns) / 0.15) ** 2)) * (1 + 0.5 * noise)


def masks() -> torch.Tensor:
    masks_RN = torch.zeros(2, N)
    masks_RN[0, 20:35] = 1
    masks_RN[1, 50:70] = torch.linspace(0.2, 1, 20)
    return masks_RN


def exact(J_ND: torch.Tensor, mask_N: torch.Tensor, trade_off: float) -> tuple[np.ndarray, ...]:
    inside = (mask_N[:, None] * J_ND).double().numpy()
    outside = ((1 - mask_N)[:, None] * J_ND).double().numpy()
    ridge = trade_off * np.linalg.norm(inside, 2) ** 2 * np.eye(D)
    values, vectors = scipy.linalg.eigh(inside.T @ inside, outside.T @ outside + ridge)
    vectors = vectors[:, ::-1].T
    return values[::-1], vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def found(
    jacobian: Explicit, masks_RN: torch.Tensor, count: int, **options: float
) -> list[Spectrum]:
    settings = {"trade_off": 0.1, "tolerance": 0.02, "max_rounds": 40} | options
    generator = torch.Generator().manual_seed(1)
    counts = [count] * len(masks_RN)
    return list(
        local_directions(jacobian, masks_RN, counts, generator=generator, **settings).spectra  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("trade_off", [0.03, 0.1, 1.0])
def test_directions_are_those_of_the_dense_eigenproblem(trade_off: float) -> None:
    J_ND = smooth()
    for mask_N, spectrum in zip(
        masks(), found(Explicit(J_ND), masks(), 2, trade_off=trade_off), strict=True
    ):
        values, vectors = exact(J_ND, mask_N, trade_off)
        assert spectrum.converged
        cosine = abs(float(spectrum.V_KD[0].double() @ torch.from_numpy(vectors[0].copy())))
        assert cosine > 0.998
        assert float(spectrum.gap_K[0]) == pytest.approx(values[1] / values[0], rel=0.02)


def test_the_answer_is_more_local_than_the_top_singular_direction_and_weaker() -> None:
    J_ND = smooth()
    mask_N = masks()[0]
    (spectrum,) = found(Explicit(J_ND), mask_N[None], 1)
    top_D = torch.linalg.svd(mask_N[:, None] * J_ND).Vh[0]

    def leak(v_D: torch.Tensor) -> float:
        y_N = J_ND @ v_D
        return float(((1 - mask_N) * y_N).norm() / (mask_N * y_N).norm())

    assert leak(spectrum.V_KD[0]) < 0.7 * leak(top_D)
    assert spectrum.S_K[0] < (mask_N * (J_ND @ top_D)).norm()


def test_another_trade_off_needs_no_other_products() -> None:
    jacobian = Explicit(smooth())
    basis = local_directions(
        jacobian, masks(), [2, 2], trade_off=0.1, tolerance=0.02, max_rounds=40,
        generator=torch.Generator().manual_seed(1),
    ).basis  # fmt: skip
    spent = jacobian.jvp_count
    pencil = localised_in(basis, masks()[0], 1, 0.3)
    values, _ = exact(jacobian.J_ND, masks()[0], 0.3)
    assert float(pencil.theta_K[0]) == pytest.approx(values[0], rel=0.02)
    assert jacobian.jvp_count == spent


def test_a_region_that_does_not_respond_gives_no_direction_and_the_other_is_found() -> None:
    J_ND = smooth()
    J_ND[20:35] = 0
    silent, other = found(Explicit(J_ND), masks(), 2)
    assert len(silent.S_K) == 0
    assert len(other.S_K) == 2


def test_nan_of_the_map_is_an_error_not_a_direction() -> None:
    J_ND = smooth()
    J_ND[3, 5] = float("nan")
    with pytest.raises(NotFiniteError):
        found(Explicit(J_ND), masks(), 1)
