import pytest
import torch

from lib.discovery.null_space import without


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_what_is_left_is_the_residual_of_least_squares() -> None:
    V_KD, null_RD = noise(3, 50), noise(5, 50, seed=1)
    fit_KD = torch.linalg.lstsq(null_RD.T, V_KD.T).solution.T @ null_RD
    expected_KD = torch.nn.functional.normalize(V_KD - fit_KD, dim=1)
    torch.testing.assert_close(without(V_KD, null_RD), expected_KD, rtol=0, atol=1e-13)


def test_float32_rows_stay_float32_and_are_orthogonal_to_rounding() -> None:
    left_KD = without(noise(3, 5000).float(), noise(20, 5000, seed=1).float())
    assert left_KD.dtype == torch.float32
    torch.testing.assert_close(left_KD.norm(dim=1), torch.ones(3))
    unit_RD = torch.nn.functional.normalize(noise(20, 5000, seed=1).float(), dim=1)
    assert float((left_KD @ unit_RD.T).abs().max()) < 1e-6


def test_dependent_and_zero_rows_to_avoid_change_nothing() -> None:
    V_KD, null_RD = noise(2, 30), noise(2, 30, seed=1)
    many_RD = torch.cat([null_RD, 1e3 * null_RD.sum(0, keepdim=True), torch.zeros(1, 30)])
    torch.testing.assert_close(without(V_KD, many_RD), without(V_KD, null_RD), rtol=0, atol=1e-12)


def test_nothing_to_avoid_leaves_the_direction() -> None:
    V_KD = noise(2, 30)
    expected_KD = torch.nn.functional.normalize(V_KD, dim=1)
    torch.testing.assert_close(without(V_KD, V_KD[:0]), expected_KD)


def test_a_direction_in_the_span_is_refused_by_its_number() -> None:
    null_RD = noise(4, 30)
    inside_D = noise(4, seed=2) @ null_RD
    with pytest.raises(ValueError, match="direction 1 of 2 lies in the span of the 4 directions"):
        without(torch.stack([noise(30, seed=3), inside_D]), null_RD)
    with pytest.raises(ValueError, match=r"30 entries cannot .* of 29"):
        without(noise(1, 30), noise(1, 29))
