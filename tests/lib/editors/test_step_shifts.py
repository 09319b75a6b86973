"""The free delta h against a search and a product written out."""

from __future__ import annotations

from math import sqrt

import pytest
import torch

from lib.editors.step_shifts import StepShifts

TIMESTEPS, NORMS, SHAPE = (900, 600, 200), (6.0, 12.0, 24.0), (2, 3, 6)
UNITS = [norm / 6 for norm in NORMS]  # sqrt(2 * 3 * 6) = 6


def shifts() -> StepShifts:
    made = StepShifts(TIMESTEPS, NORMS, SHAPE)
    with torch.no_grad():
        made.steps_SCYX.copy_(torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)))
    return made


def test_it_begins_at_zero_and_has_nothing_else_to_learn_or_keep() -> None:
    made = StepShifts(TIMESTEPS, NORMS, SHAPE)
    assert not made(torch.randn(2, *SHAPE), torch.tensor([900, 1])).any()
    assert [name for name, _ in made.named_parameters()] == ["steps_SCYX"]
    assert list(made.state_dict()) == ["steps_SCYX"]


def test_each_example_has_the_step_nearest_to_its_timestep_in_units_of_h() -> None:
    made = shifts()
    nearest = {999: 0, 900: 0, 751: 0, 749: 1, 600: 1, 401: 1, 399: 2, 200: 2, 0: 2}
    h_BCYX = torch.randn(len(nearest), *SHAPE)
    found_BCYX = made(h_BCYX, torch.tensor(list(nearest)))
    for found_CYX, step in zip(found_BCYX, nearest.values(), strict=True):
        expected_CYX = UNITS[step] * made.steps_SCYX[step]
        torch.testing.assert_close(found_CYX, expected_CYX)
    torch.testing.assert_close(made.delta_SCYX[1], 2 * made.steps_SCYX[1])


def test_steps_of_entries_one_are_as_long_as_h() -> None:
    made = StepShifts(TIMESTEPS, NORMS, SHAPE)
    with torch.no_grad():
        made.steps_SCYX.fill_(1)
    assert made.delta_SCYX.flatten(1).norm(dim=1).tolist() == pytest.approx(NORMS)
    assert sqrt(2 * 3 * 6) == 6


def test_gradient_reaches_the_chosen_steps_alone() -> None:
    made = shifts()
    made(torch.randn(2, *SHAPE), torch.tensor([650, 880])).sum().backward()
    assert made.steps_SCYX.grad is not None
    assert made.steps_SCYX.grad[:, 0, 0, 0].tolist() == pytest.approx([1.0, 2.0, 0.0])


def test_one_timestep_serves_a_batch_and_another_h_is_refused() -> None:
    made = shifts()
    found = made(torch.randn(3, *SHAPE), torch.tensor([600]))
    assert found.shape == (3, *SHAPE)
    with pytest.raises(ValueError, match=r"expected h \(B, 2, 3, 6\), got \(1, 2, 3, 5\)"):
        made(torch.randn(1, 2, 3, 5), torch.tensor([600]))
