"""h that is read for all images, held against the linear network's own matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from lib.records import Failure, Inverted, Sample
from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim import transfer
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.eta import constant_eta
from lib.sampling.grid import Grid
from lib.sampling.sampler import Sampler, plain_latent
from tasks.invert import Inverter
from tasks.observe import CaptureReader, Observer

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


@pytest.mark.parametrize(
    ("sampler", "looks_at"),
    [
        (DdimSampler(), "below"),
        (DdimSampler(1), "guess"),
        (BdiaSampler(), "x_t"),
        (DdpmSampler(constant_eta(0.5)), "x_t"),
    ],
    ids=["ddim", "refined", "bdia", "ddpm"],
)
def test_h_of_inversion_is_that_of_its_last_look_and_costs_nothing(
    linear: Any, grid: Grid, sample: Callable[..., Sample], sampler: Sampler, looks_at: str
) -> None:
    nodes = frozenset({2, 4})
    inverter = Inverter(
        linear,
        grid,
        last=4,
        keep=frozenset({1, 2, 3, 4}),
        observe=nodes,
        sampler=sampler,
        batch_size=2,
    )
    items = list(inverter([sample(i) for i in range(3)], lambda failure: None))
    assert linear.rows["predict"] + linear.rows["encode"] == 3 * inverter.evaluations
    assert linear.rows["bottleneck"] == 0
    reader = CaptureReader([grid.timestep(4), grid.timestep(2)])
    linear.rows.clear()
    found = list(reader(items, lambda failure: None))
    assert not linear.rows
    assert reader.evaluations == 0
    for item, observed in zip(items, found, strict=True):
        for step, node in enumerate((4, 2)):
            x_LYX = item.states_LYX[grid.timestep(node)]
            below_LYX = item.states_LYX[grid.timestep(node - 1)]
            if looks_at == "below":
                x_LYX = below_LYX
            elif looks_at == "guess":
                t, alphas = grid.timestep(node), grid.alphas
                eps_BLYX = linear.predict(below_LYX[None], t)
                x_LYX = transfer(below_LYX[None], eps_BLYX, alphas[node - 1], alphas[node])[0]
            expected = linear.W_DN @ x_LYX.double().numpy().ravel()
            np.testing.assert_allclose(observed.h_SCYX[step].flatten(), expected, atol=1e-4)


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
