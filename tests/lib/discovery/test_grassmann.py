import math

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.optimize import minimize_scalar

from lib.discovery.grassmann import exponential, frechet_mean, logarithm, transported


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.linalg.qr(noise(width, count, seed=seed)).Q.T


def angle(a_KD: torch.Tensor, b_KD: torch.Tensor) -> float:
    return float(subspace_angles(a_KD.T.numpy(), b_KD.T.numpy()).max())


def tangent(base_KD: torch.Tensor, size: float, seed: int) -> torch.Tensor:
    free_KD = noise(*base_KD.shape, seed=seed)
    free_KD = free_KD - free_KD @ base_KD.T @ base_KD
    return size * free_KD / torch.linalg.matrix_norm(free_KD, 2)


def spread_around(base_KD: torch.Tensor, size: float, pairs: int) -> list[torch.Tensor]:
    """Subspaces in pairs that lie opposite each other, so that `base` is their mean."""
    tangents = [tangent(base_KD, size, seed) for seed in range(pairs)]
    return [exponential(base_KD, sign * t_KD) for t_KD in tangents for sign in (1, -1)]


def test_the_logarithm_has_the_length_of_scipys_principal_angles() -> None:
    a_KD, b_KD = rows(3, 20), rows(3, 20, seed=1)
    expected = np.linalg.norm(subspace_angles(a_KD.T.numpy(), b_KD.T.numpy()))
    assert float(logarithm(a_KD, b_KD).norm()) == pytest.approx(expected, rel=1e-12)


def test_exponential_and_logarithm_undo_each_other() -> None:
    a_KD, b_KD = rows(3, 20), rows(3, 20, seed=1)
    assert angle(exponential(a_KD, logarithm(a_KD, b_KD)), b_KD) < 1e-7
    t_KD = tangent(a_KD, 1.2, 2)
    torch.testing.assert_close(logarithm(a_KD, exponential(a_KD, t_KD)), t_KD, rtol=0, atol=1e-12)
    same_KD = torch.linalg.qr(noise(3, 3)).Q @ a_KD
    assert float(logarithm(a_KD, same_KD).norm()) < 1e-12


def test_the_geodesic_turns_a_plane_by_the_given_angle() -> None:
    base_KD = torch.eye(4, dtype=torch.float64)[:2]
    t_KD = torch.zeros(2, 4, dtype=torch.float64)
    t_KD[0, 2] = 0.3  # e0 turns towards e2, e1 stays
    expected_KD = torch.tensor([[math.cos(0.3), 0, math.sin(0.3), 0], [0, 1, 0, 0]]).double()
    torch.testing.assert_close(exponential(base_KD, t_KD), expected_KD, rtol=0, atol=1e-7)


@pytest.mark.parametrize("size", [0.05, 0.5, 0.75])
def test_the_mean_of_a_symmetric_spread_is_its_centre(size: float) -> None:
    base_KD = rows(3, 40)
    mean = frechet_mean(spread_around(base_KD, size, 3))
    assert mean.converged
    assert angle(mean.basis_KD, base_KD) < 1e-7
    expected = math.sqrt(np.mean([float(tangent(base_KD, size, s).norm()) ** 2 for s in range(3)]))
    assert mean.spread == pytest.approx(expected, rel=1e-9)


def test_the_mean_of_unequal_angles_is_their_mean_angle_unlike_the_mean_projector() -> None:
    """Lines in a plane at 0, 0 and 60 degrees: the mean is at 20, of projectors 15."""
    lines = [torch.tensor([[math.cos(a), math.sin(a), 0.0]]).double() for a in (0, 0, math.pi / 3)]
    mean_D = frechet_mean(lines).basis_KD[0]
    assert math.degrees(math.atan2(mean_D[1], mean_D[0])) == pytest.approx(20, abs=1e-6)


def test_no_neighbour_of_the_mean_has_a_smaller_mean_squared_distance() -> None:
    points = [exponential(rows(2, 12), tangent(rows(2, 12), 0.6, seed)) for seed in range(5)]
    mean = frechet_mean(points)
    assert mean.converged
    assert mean.iterations < 60

    def cost(along_KD: torch.Tensor, length: float) -> float:
        at = exponential(mean.basis_KD, length * along_KD).T.numpy()
        return sum(float((subspace_angles(at, p.T.numpy()) ** 2).sum()) for p in points)

    for seed in range(4):
        along_KD = tangent(mean.basis_KD, 1.0, 20 + seed)
        best = minimize_scalar(lambda s, a=along_KD: cost(a, s), bounds=(-0.1, 0.1)).x
        assert abs(best) < 1e-4


def test_neither_the_bases_nor_their_order_change_the_mean() -> None:
    points = [exponential(rows(3, 30), tangent(rows(3, 30), 0.5, seed)) for seed in range(4)]
    turned = [torch.linalg.qr(noise(3, 3, seed=i)).Q @ p for i, p in enumerate(points)]
    first, second = frechet_mean(points), frechet_mean(turned[::-1])
    torch.testing.assert_close(first.basis_KD, second.basis_KD, rtol=0, atol=1e-7)
    torch.testing.assert_close(first.agreement_K, second.agreement_K, rtol=0, atol=1e-9)
    assert (first.agreement_K.diff() <= 0).all()


def test_a_mean_of_equal_subspaces_is_that_subspace_without_iterating() -> None:
    base_KD = rows(3, 30).float()
    mean = frechet_mean([base_KD] * 4, tolerance=1e-6)
    assert mean.iterations == 0
    assert mean.spread < 1e-6
    assert angle(mean.basis_KD, base_KD.double()) < 1e-6
    torch.testing.assert_close(mean.agreement_K, torch.ones(3).double())


def test_transport_takes_the_part_that_the_other_image_shares() -> None:
    U_KD, V_KE = rows(4, 20), rows(4, 50, seed=1)
    outside_D = noise(20, seed=3)
    outside_D = outside_D - U_KD.T @ (U_KD @ outside_D)
    u_0_D = 3 * U_KD[0] - 4 * U_KD[2] + outside_D
    expected_E = (3 * V_KE[0] - 4 * V_KE[2]) / 5
    torch.testing.assert_close(transported(u_0_D, U_KD, V_KE), expected_E, rtol=0, atol=1e-12)
    turn_KK = torch.linalg.qr(noise(4, 4, seed=4)).Q
    turned_E = transported(u_0_D, turn_KK @ U_KD, turn_KK @ V_KE)
    torch.testing.assert_close(turned_E, expected_E, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="orthogonal to the 4 directions"):
        transported(outside_D, U_KD, V_KE)
    with pytest.raises(ValueError, match=r"19 entries .* \(4, 20\) and \(4, 50\)"):
        transported(u_0_D[:19], U_KD, V_KE)


def test_bases_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape .* \[\(2, 9\), \(3, 9\)\]"):
        frechet_mean([rows(2, 9), rows(3, 9)])
    with pytest.raises(ValueError, match="orthonormal rows, these are off by 3"):
        frechet_mean([2 * rows(2, 9)])
