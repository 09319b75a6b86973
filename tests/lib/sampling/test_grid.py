import diffusers
import numpy as np
import pytest

from lib.problems import ConfigProblem, ModelProblem
from lib.sampling.ddim import round_trip_error
from lib.sampling.grid import (
    edited_nodes,
    grid_timesteps,
    last_node,
    make_grid,
    nearest_node,
    training_alphas,
)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("num_steps", [10, 20, 50, 1000])
def test_constant_noise_round_trip_loses_nothing(num_steps: int, spacing: str) -> None:
    assert round_trip_error(make_grid({}, num_steps, spacing)) < 1e-6


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_timesteps_are_those_of_diffusers(spacing: str) -> None:
    scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing)
    for num_steps in (10, 20, 50):
        scheduler.set_timesteps(num_steps)
        assert list(grid_timesteps(num_steps, spacing, 1000)) == scheduler.timesteps.tolist()[::-1]


@pytest.mark.parametrize(
    "config",
    [
        {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
    ],
)
def test_schedules_are_those_of_diffusers(config: dict[str, object]) -> None:
    theirs = diffusers.DDPMScheduler(**config).alphas_cumprod.numpy()
    np.testing.assert_allclose(training_alphas(config), theirs, rtol=2e-4)


def test_window_holds_the_nodes_between_its_ends_descending() -> None:
    timesteps = grid_timesteps(10, "trailing", 1000)  # 99, 199, ... 999
    assert [timesteps[i - 1] for i in edited_nodes(timesteps, (700, 299))] == [
        699,
        599,
        499,
        399,
        299,
    ]
    with pytest.raises(ConfigProblem, match="holds a timestep of the grid"):
        edited_nodes(timesteps, (150, 110))
    assert last_node(timesteps, 700) == 7
    assert nearest_node(timesteps, 368) == 4


def test_unusable_schedules_are_refused_with_what_was_expected() -> None:
    with pytest.raises(ModelProblem, match="expected beta_schedule linear"):
        training_alphas({"beta_schedule": "sigmoid"})
    with pytest.raises(ModelProblem, match="expected 1000 betas"):
        training_alphas({"trained_betas": [0.1, 0.2]})
    with pytest.raises(ConfigProblem, match="at most the model's 10 training"):
        grid_timesteps(20, "trailing", 10)
