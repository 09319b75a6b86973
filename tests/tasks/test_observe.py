"""h that is read for all images, held against the linear network's own matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from lib.records import Failure, Inverted, Sample
from lib.sampler import plain_latent
from tasks.observe import Observer

TIMESTEPS = (832, 332)


def inverted(sample: Callable[..., Sample], index: int) -> Inverted:
    generator = torch.Generator().manual_seed(index)
    states = {t: torch.randn(3, 4, 4, generator=generator) for t in TIMESTEPS}
    return Inverted(sample(index), plain_latent(states[832]), states)


def test_h_of_every_image_at_every_timestep_in_the_order_asked_for(
    linear: Any, sample: Callable[..., Sample]
) -> None:
    items = [inverted(sample, index) for index in (0, 1, 2, 5, 7)]
    failures: list[Failure] = []
    found = list(Observer(linear, timesteps=TIMESTEPS, batch_size=3)(items, failures.append))
    assert not failures
    assert [item.sample.index for item in found] == [0, 1, 2, 5, 7]
    for item, observed in zip(items, found, strict=True):
        assert observed.h_SCYX.shape == (2, 2, 2, 2)
        for step, t in enumerate(TIMESTEPS):
            expected = linear.W_DN @ item.states_LYX[t].double().numpy().ravel()
            np.testing.assert_allclose(observed.h_SCYX[step].flatten(), expected, atol=1e-5)


def test_a_rejected_neighbour_moves_nobody_into_another_batch(
    linear: Any, sample: Callable[..., Sample]
) -> None:
    linear.rows.clear()
    items = [inverted(sample, index) for index in (0, 3, 4, 5)]
    observer = Observer(linear, timesteps=TIMESTEPS, batch_size=3)
    list(observer(items, lambda failure: None))
    assert linear.rows["encode"] == observer.evaluations * len(items)


def test_an_image_whose_h_is_not_finite_is_rejected_alone(
    linear: Any, sample: Callable[..., Sample]
) -> None:
    items = [inverted(sample, index) for index in range(3)]
    items[1].states_LYX[332][0, 0, 0] = float("nan")
    failures: list[Failure] = []
    found = list(Observer(linear, timesteps=TIMESTEPS, batch_size=8)(items, failures.append))
    assert [item.sample.index for item in found] == [0, 2]
    assert [(f.index, f.stage, f.kind) for f in failures] == [(1, "observe", "not_finite")]
