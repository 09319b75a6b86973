"""The edit stage with every way of inversion: edits leave the reconstruction where they begin, and
go both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.direction import Direction
from lib.editing.edit_plan import every_strength
from lib.records import Failure, Sample
from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import EtaSchedule, constant_eta
from lib.sampling.grid import Grid, make_grid
from lib.sampling.sampler import Latent, Sampler
from lib.shift import Shift
from tasks.edit import Editor
from tasks.invert import Inverter

EXACT: dict[str, Sampler] = {
    "edict": EdictSampler(),
    "bdia": BdiaSampler(),
    "bdia, gamma 0.9": BdiaSampler(0.9),
    "ddpm": DdpmSampler(constant_eta(1.0)),
    "ddpm, eta 0.2": DdpmSampler(constant_eta(0.2)),
}
ALL = EXACT | {
    "ddim": DdimSampler(),
    "ddpm above 500": DdpmSampler(EtaSchedule(((500, 0), (501, 1)))),
}
GRID = make_grid({}, 15, "trailing")
WINDOW = (850, 300)


def editor(
    denoiser: Any, sampler: Sampler, injection: str, batch_size: int, grid: Grid = GRID
) -> Editor:
    return Editor(
        denoiser,
        grid,
        sampler=sampler,
        window=WINDOW,
        injection=injection,
        plan=every_strength([1.0]),
        batch_size=batch_size,
        h_norms=dict.fromkeys(grid.timesteps, 0.05),
    )


def inverter(denoiser: Any, sampler: Sampler, grid: Grid = GRID) -> Inverter:
    last = grid.last_node(WINDOW[0])
    return Inverter(denoiser, grid, last=last, keep=frozenset({3}), sampler=sampler, batch_size=4)


@pytest.fixture
def shifts(direction: Callable[..., Direction]) -> list[Shift]:
    vector_SCYX = torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(4))
    return [Shift(direction(vector_SCYX), strength) for strength in (0.0, 1.0, -1.0, 2.0)]


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("name", ALL)
def test_edits_go_both_ways_from_the_reconstruction(
    linear: Any, sample: Callable[..., Sample], shifts: list[Shift], name: str, injection: str
) -> None:
    """The network is linear, so that edits are, whatever the sampler; and an edit of no strength is
    the reconstruction.
    """
    samples, failures = [sample(i) for i in range(3)], list[Failure]()
    inverted = list(inverter(linear, ALL[name])(samples, failures.append))
    assert not failures
    linear.rows.clear()
    whole = editor(linear, ALL[name], injection, 16).decoder(inverted[1].latent, shifts)
    assert whole.evaluations == sum(linear.rows.values())
    plain, none, plus, minus, twice = whole.x_BLYX
    if name in EXACT:
        torch.testing.assert_close(plain, samples[1].image_CHW, rtol=0, atol=1e-4)
    torch.testing.assert_close(none, plain, rtol=0, atol=1e-4)
    assert float((plus - plain).abs().max()) > 0.02
    torch.testing.assert_close(plus - plain, plain - minus, rtol=0, atol=1e-4)
    torch.testing.assert_close(twice - plain, 2 * (plus - plain), rtol=0, atol=1e-4)
    parts = editor(linear, ALL[name], injection, 2).decoder(inverted[1].latent, shifts)
    torch.testing.assert_close(parts.x_BLYX, whole.x_BLYX, rtol=0, atol=1 / 255)


@pytest.mark.parametrize("name", ALL)
def test_inversion_costs_what_it_says(
    linear: Any, sample: Callable[..., Sample], name: str
) -> None:
    stage = inverter(linear, ALL[name])
    assert len(list(stage([sample(0), sample(1)], lambda _: None))) == 2
    assert linear.rows["predict"] == 2 * stage.evaluations


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("name", ["edict", "bdia", "bdia, gamma 0.9"])
def test_an_edit_does_what_it_does_with_ddim_as_steps_become_small(
    linear: Any, shifts: list[Shift], name: str, injection: str
) -> None:
    """The exact schemes follow the same curve, so a strength means the same. In a linear network an
    edit does not depend on the image, here x_t = 0.
    """

    def change(sampler: Sampler, num_steps: int, states: int) -> Tensor:
        grid = make_grid({}, num_steps, "trailing")
        latent = Latent(torch.zeros(states, 3, 4, 4, dtype=torch.float64), {})
        x_BLYX = editor(linear, sampler, injection, 16, grid).decoder(latent, shifts).x_BLYX
        return x_BLYX[2] - x_BLYX[0]

    apart = []
    for num_steps in (50, 200):
        expected = change(DdimSampler(), num_steps, 1)
        found = change(EXACT[name], num_steps, 2)
        apart.append(float((found - expected).norm() / expected.norm()))
    assert apart[1] < apart[0] / 2
    assert apart[1] < 0.08
