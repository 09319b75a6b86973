import pytest
import torch

from lib.subspace import NotFiniteError, Spectrum, top_directions


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


def falling(seed: int = 0, rows: int = 400, columns: int = 200, decay: float = 8.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.exp(-torch.arange(columns) / decay)
    left = torch.linalg.qr(torch.randn(rows, columns, generator=generator))[0]
    return (left * values) @ torch.linalg.qr(torch.randn(columns, columns, generator=generator))[0]


def masks() -> torch.Tensor:
    masks_RN = torch.zeros(3, 400)
    masks_RN[0, :150] = 1
    masks_RN[1, 100:250] = 0.6
    masks_RN[2, 250:] = 1
    return masks_RN


def run(
    jacobian: Explicit, masks_RN: torch.Tensor, count: int, tolerance: float
) -> tuple[Spectrum, ...]:
    generator = torch.Generator().manual_seed(3)
    return top_directions(
        jacobian, masks_RN, count, tolerance=tolerance, max_rounds=40, generator=generator
    )


def true_sine(J_ND: torch.Tensor, mask_N: torch.Tensor, spectrum: Spectrum) -> float:
    """Largest sine between the found span and the float64 SVD's."""
    exact_KD = torch.linalg.svd(mask_N[:, None].double() * J_ND.double()).Vh[: len(spectrum.S_K)]
    found_KD = torch.linalg.qr(spectrum.V_KD.double().T)[0].T
    return float(torch.linalg.matrix_norm(found_KD - found_KD @ exact_KD.T @ exact_KD, 2))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_directions_are_those_of_the_exact_svd_within_the_estimated_angle(count: int) -> None:
    J_ND = falling().double()
    spectra = run(Explicit(J_ND), masks().double(), count, tolerance=1e-2)
    for mask_N, spectrum in zip(masks(), spectra, strict=True):
        assert spectrum.converged
        assert true_sine(J_ND, mask_N, spectrum) <= spectrum.angle <= 1e-2
        exact_K = torch.linalg.svdvals(mask_N[:, None] * J_ND)[: count + 1]
        torch.testing.assert_close(spectrum.S_K, exact_K[:count], rtol=1e-3, atol=0)
        torch.testing.assert_close(spectrum.gap_K, exact_K[1:] / exact_K[:-1], rtol=0.05, atol=0)


def test_one_basis_for_all_regions_costs_less_than_one_a_region() -> None:
    together, apart = Explicit(falling()), Explicit(falling())
    run(together, masks(), 3, 1e-2)
    for mask_N in masks():
        run(apart, mask_N[None], 3, 1e-2)
    assert together.jvp_count + together.vjp_count < apart.jvp_count + apart.vjp_count


def test_left_vectors_vanish_outside_the_region_and_reproduce_the_values() -> None:
    J_ND = falling()
    for mask_N, spectrum in zip(masks(), run(Explicit(J_ND), masks(), 2, 1e-2), strict=True):
        assert (spectrum.U_KN[:, mask_N == 0] == 0).all()
        images_KN = spectrum.V_KD @ J_ND.T * mask_N
        torch.testing.assert_close(
            (images_KN * spectrum.U_KN).sum(1), spectrum.S_K, rtol=1e-3, atol=1e-5
        )


def test_a_region_of_lower_rank_gives_as_many_directions_as_it_has() -> None:
    masks_RN = torch.zeros(2, 400)
    masks_RN[0, :2] = 1  # two rows: rank 2
    masks_RN[1, 100:] = 1
    spectra = run(Explicit(falling()), masks_RN, 4, 1e-2)
    assert [len(s.S_K) for s in spectra] == [2, 4]


def test_a_region_without_response_gives_no_direction() -> None:
    J_ND = falling()
    J_ND[:150] = 0
    spectra = run(Explicit(J_ND), masks(), 2, 1e-2)
    assert len(spectra[0].S_K) == 0
    assert len(spectra[2].S_K) == 2


def test_a_tie_is_reported_as_not_converged_with_a_gap_of_one() -> None:
    J_ND = torch.zeros(40, 30)
    J_ND[range(6), range(6)] = torch.tensor([3.0, 2.0, 2.0, 1.0, 0.5, 0.2])
    (spectrum,) = run(Explicit(J_ND), torch.ones(1, 40), 2, 1e-3)
    assert not spectrum.converged
    assert spectrum.gap_K[-1] > 0.999
    torch.testing.assert_close(spectrum.S_K, torch.tensor([3.0, 2.0]))


def test_nan_of_the_map_is_an_error_not_a_direction() -> None:
    J_ND = falling()
    J_ND[3, 5] = float("nan")
    with pytest.raises(NotFiniteError):
        run(Explicit(J_ND), masks(), 2, 1e-2)
