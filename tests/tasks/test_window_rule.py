"""Asyrp's perceptual rule on the linear network: distances in closed form, cuts read off a table.

Shape suffixes: as in `conftest`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lib.editing.window_rule import Cuts, Seen, cuts, distances
from lib.metrics.perceptual_distance import PerceptualDistance
from lib.problems import ConfigProblem
from lib.sampling.grid import Grid

TABLE = [
    Seen(100, 0.1, 0.3),
    Seen(200, 0.35, 0.6),
    Seen(300, 0.3, 1.3),
    Seen(400, 0.5, 1.4),
]


def test_the_lowest_timestep_that_is_far_enough_is_taken() -> None:
    assert cuts(TABLE, edit=0.33, boost=1.2) == Cuts(200, 300)
    assert cuts(TABLE, edit=0.4, boost=0.3) == Cuts(400, 100)
    assert cuts(TABLE, edit=0.05, boost=2.0) == Cuts(100, 0)


def test_a_network_that_always_sees_the_image_is_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"0\.900 from .* up to 400 .* at most 0\.500"):
        cuts(TABLE, edit=0.9, boost=1.2)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_distances_are_those_of_the_prediction_and_of_the_noisy_image(
    linear: Any, grid: Grid, batch_size: int
) -> None:
    images = [
        torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(i)) - 0.5 for i in range(3)
    ]
    distance = PerceptualDistance("l1", lambda a, b: (a - b).abs().mean((1, 2, 3)), 1.0, 1.0)
    found = distances(linear, grid, images, distance, last=4, batch_size=batch_size)
    expected = np.zeros((4, 2))
    for image_CHW in images:
        x0_N = image_CHW.flatten().double().numpy()
        x_N = x0_N
        for node in range(1, 5):
            low, high = grid.alphas[node - 1], grid.alphas[node]
            E_NN = linear.E_NN(grid.timestep(node))
            eps_N = E_NN @ x_N
            p_N = (x_N - np.sqrt(1 - low) * eps_N) / np.sqrt(low)
            x_N = np.sqrt(high) * p_N + np.sqrt(1 - high) * eps_N
            seen_N = (x_N - np.sqrt(1 - high) * E_NN @ x_N) / np.sqrt(high)
            expected[node - 1] += np.abs(seen_N - x0_N).mean(), np.abs(x_N - x0_N).mean()
    assert [s.timestep for s in found] == list(grid.timesteps[:4])
    for one, (predicted, noisy) in zip(found, expected / 3, strict=True):
        assert one.predicted == pytest.approx(predicted, rel=1e-4)
        assert one.noisy == pytest.approx(noisy, rel=1e-4)
