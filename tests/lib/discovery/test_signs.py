import pytest
import torch

from lib.discovery.signs import aligned_steps, aligned_to, brightness, fixed_sign, matched_order


def rows(count: int, seed: int = 0, width: int = 64) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def signed(V_KD: torch.Tensor, references: list[float | None]) -> torch.Tensor:
    pairs = zip(V_KD, references, strict=True)
    return torch.stack([fixed_sign(v_D, reference) * v_D for v_D, reference in pairs])


def test_the_reference_decides_and_a_weak_one_leaves_it_to_the_largest_entry() -> None:
    v_D = torch.tensor([0.1, -0.9, 0.4])
    assert fixed_sign(v_D, 0.5) == 1
    assert fixed_sign(v_D, -0.5) == -1
    assert fixed_sign(v_D, 1e-4) == fixed_sign(v_D, -1e-4) == fixed_sign(v_D) == -1
    assert fixed_sign(torch.zeros(3)) == 1


def test_both_signs_of_a_vector_end_at_the_same_one() -> None:
    for v_D in rows(50):
        assert fixed_sign(v_D) == -fixed_sign(-v_D)
        assert fixed_sign(v_D, 0.2) == fixed_sign(-v_D, 0.2) == 1


def test_rounding_does_not_flip_a_vector_with_equally_large_entries() -> None:
    """A face's left and right eye: entries a and -a, which one is larger is rounding's choice."""
    noise_KD = 1e-6 * rows(200, width=4)
    for noise_D in noise_KD:
        assert fixed_sign(torch.tensor([0.1, -0.6, 0.6, 0.5]) + noise_D) == -1


def test_a_vector_keeps_its_sign_in_half_precision() -> None:
    V_KD = torch.nn.functional.normalize(rows(300, width=2048), dim=1)
    kept = signed(V_KD, [None] * 300)
    assert [fixed_sign(v_D) for v_D in kept.half().float()].count(1.0) >= 298


def test_signs_do_not_depend_on_the_order_of_the_input() -> None:
    V_KD = rows(20)
    references: list[float | None] = [None if i % 3 else 0.1 * (i - 10) for i in range(20)]
    backwards = signed(V_KD.flip(0), references[::-1]).flip(0)
    assert torch.equal(signed(V_KD, references), backwards)


def test_brightness_is_the_net_share_of_the_change() -> None:
    assert brightness(torch.tensor([3.0, -1.0])) == 0.5  # (3 - 1) / (3 + 1)
    assert brightness(-torch.ones(5)) == -1
    assert brightness(torch.zeros(5)) == 0


def turning(steps: int) -> torch.Tensor:
    """A direction that turns by 40 degrees a step: the ends are far more than 90 degrees apart."""
    angle_S = torch.deg2rad(40.0 * torch.arange(steps))
    return torch.stack([angle_S.cos(), angle_S.sin(), torch.zeros(steps)], dim=1)


def test_steps_are_aligned_to_their_neighbour_from_the_highest_timestep_down() -> None:
    true_SD = turning(6)
    flips_S = torch.tensor([1.0, -1, -1, 1, -1, 1])
    timesteps = [900, 700, 500, 300, 100, 0]
    assert torch.equal(aligned_steps(flips_S[:, None] * true_SD, timesteps), true_SD)


def test_the_alignment_of_steps_is_the_same_in_reversed_order() -> None:
    mixed_SD = torch.tensor([1.0, -1, -1, 1, -1, 1])[:, None] * turning(6)
    timesteps = [900, 700, 500, 300, 100, 0]
    forwards = aligned_steps(mixed_SD, timesteps)
    assert torch.equal(aligned_steps(mixed_SD.flip(0), timesteps[::-1]).flip(0), forwards)


def test_orthogonal_neighbours_are_a_tie_that_the_largest_entry_breaks() -> None:
    reference_D = torch.tensor([1.0, 0.0, 0.0])
    v_D = torch.tensor([0.0, -2.0, 1.0])
    assert torch.equal(aligned_to(v_D, reference_D), -v_D)
    assert torch.equal(aligned_to(-v_D, reference_D), -v_D)
    assert torch.equal(aligned_to(v_D, torch.zeros(3)), -v_D)


def test_every_step_needs_a_timestep() -> None:
    with pytest.raises(ValueError, match="each of the 4 rows, got 3"):
        aligned_steps(rows(4), [3, 2, 1])


def test_directions_are_matched_whatever_their_sign_length_and_order() -> None:
    reference_KD = rows(6, seed=1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    factors_K = torch.tensor([2.0, -1, 0.5, -3, 1, -0.1])
    shuffled_KD = torch.empty(6, 64)
    shuffled_KD[order] = factors_K[:, None] * (reference_KD + 0.3 * rows(6, seed=2))
    assert matched_order(shuffled_KD, reference_KD) == order.tolist()
