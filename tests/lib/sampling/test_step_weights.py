"""Weights of steps: parts of an integral over the window, counted timestep by timestep."""

from __future__ import annotations

import numpy as np
import pytest

from lib.sampling.grid import make_grid
from lib.sampling.step_weights import single_weight, window_weights

WINDOW = (847, 301)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("num_steps", [7, 20, 53])
def test_asymmetric_weights_add_up_to_the_window_on_every_grid(
    spacing: str, num_steps: int
) -> None:
    found = window_weights(make_grid({}, num_steps, spacing), WINDOW, "asymmetric")
    assert sum(found.values()) == pytest.approx((847 - 301 + 1) / 50)


@pytest.mark.parametrize("num_steps", [9, 30])
def test_a_timestep_belongs_to_the_nearest_node(num_steps: int) -> None:
    grid = make_grid({}, num_steps, "linspace")
    found = window_weights(grid, WINDOW, "asymmetric")
    steps = np.array([grid.timestep(node) for node in found])
    fine = np.arange(301 - 0.5, 847 + 0.5, 0.01) + 0.005
    owners = np.abs(fine[:, None] - steps).argmin(1)
    counts = np.bincount(owners, minlength=len(steps)) * 0.01 / 50
    np.testing.assert_allclose(list(found.values()), counts, atol=1e-3)


def test_an_interior_step_of_a_grid_of_twenty_weighs_one() -> None:
    for injection in ("asymmetric", "symmetric"):
        found = window_weights(make_grid({}, 20, "trailing"), WINDOW, injection)
        assert list(found.values())[1:-1] == pytest.approx([1.0] * (len(found) - 2))


@pytest.mark.parametrize("num_steps", [7, 20, 53])
def test_symmetric_weights_are_parts_of_the_steps_inside_the_window(num_steps: int) -> None:
    grid = make_grid({}, num_steps, "trailing")
    found = window_weights(grid, WINDOW, "symmetric")
    lengths = {n: grid.timestep(n) - (grid.timestep(n - 1) if n > 1 else -1) for n in found}
    assert sum(found[n] * lengths[n] for n in found) == pytest.approx(847 - 301 + 1)
    assert all(weight == 1 for weight in list(found.values())[1:-1])


def test_the_whole_schedule_ends_at_the_last_timestep_and_at_the_clean_image() -> None:
    grid = make_grid({}, 10, "trailing")
    assert sum(window_weights(grid, (5000, 0), "asymmetric").values()) == pytest.approx(20)
    assert list(window_weights(grid, (5000, 0), "symmetric").values()) == pytest.approx([1.0] * 10)


def test_one_step_alone_is_as_strong_as_one_of_twenty() -> None:
    grid = make_grid({}, 40, "trailing")
    assert single_weight(grid, 12, "asymmetric") == 1
    assert single_weight(grid, 12, "symmetric") == 2
