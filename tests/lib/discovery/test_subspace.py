import pytest
import torch

from lib.discovery.golub_kahan import Spectrum
from lib.discovery.subspace import AdjointError, NotFiniteError, top_directions


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
    jacobian: Explicit, masks_RN: torch.Tensor, count: int, tolerance: float, block: int = 1
) -> tuple[Spectrum, ...]:
    generator = torch.Generator().manual_seed(3)
    return top_directions(
        jacobian,
        masks_RN,
        [count] * len(masks_RN),
        tolerance=tolerance,
        max_rounds=80,
        generator=generator,
        block=block,
    ).spectra


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


def test_one_start_vector_a_region_needs_fewer_products_than_a_block() -> None:
    single, block = Explicit(falling()), Explicit(falling())
    run(single, masks(), 5, 1e-3)
    run(block, masks(), 5, 1e-3, block=5)
    assert single.jvp_count + single.vjp_count < 0.7 * (block.jvp_count + block.vjp_count)


@pytest.mark.parametrize("ratio", [0.95, 0.99, 0.999, 1.0])
@pytest.mark.parametrize("tolerance", [0.1, 1e-3])
def test_the_estimate_is_not_below_the_true_angle_with_values_close_together(
    ratio: float, tolerance: float
) -> None:
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        values = torch.exp(-torch.arange(120) / 7.0)
        values[seed + 1] = ratio * values[seed]
        left = torch.linalg.qr(torch.randn(200, 120, generator=generator))[0]
        right = torch.linalg.qr(torch.randn(150, 120, generator=generator))[0]
        J_ND = (left * values) @ right.T
        block = 2 if ratio == 1.0 else 1
        (spectrum,) = run(Explicit(J_ND), torch.ones(1, 200), 6, tolerance, block=block)
        assert spectrum.converged
        assert true_sine(J_ND, torch.ones(200), spectrum) <= spectrum.angle


def test_a_neighbours_directions_save_products() -> None:
    J_ND = falling()
    near_ND = J_ND + 0.02 * falling(seed=5)
    masks_RN = masks()
    options = {"tolerance": 0.1, "max_rounds": 80}
    generator = torch.Generator().manual_seed(0)
    near = top_directions(Explicit(near_ND), masks_RN, [3] * 3, generator=generator, **options)
    cold, warm = Explicit(J_ND), Explicit(J_ND)
    top_directions(cold, masks_RN, [3] * 3, generator=generator, **options)
    start = [s.V_KD for s in near.spectra]
    found = top_directions(warm, masks_RN, [3] * 3, generator=generator, start=start, **options)
    assert all(s.converged for s in found.spectra)
    assert warm.jvp_count + warm.vjp_count < cold.jvp_count + cold.vjp_count


def test_forward_and_reverse_products_of_different_maps_are_noticed() -> None:
    class Crossed(Explicit):
        def jvp(self, V_KD: torch.Tensor) -> torch.Tensor:
            return super().jvp(V_KD) * 1.1

    with pytest.raises(AdjointError, match="differ"):
        run(Crossed(falling()), masks(), 2, 0.1)


def test_the_joint_basis_holds_the_images_of_its_vectors() -> None:
    J_ND = falling()
    found = top_directions(
        Explicit(J_ND), masks(), [2, 3, 4], tolerance=0.1, max_rounds=80,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert [len(s.S_K) for s in found.spectra] == [2, 3, 4]
    Q_QD = found.basis.Q_QD
    torch.testing.assert_close(Q_QD @ Q_QD.T, torch.eye(len(Q_QD)), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.basis.JQ_QN, Q_QD @ J_ND.T, rtol=0, atol=1e-4)


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
