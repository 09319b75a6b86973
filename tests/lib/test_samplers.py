"""What every sampler promises: its decode undoes its inversion, at the cost it says, for each image
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib.demo.faces import render, sample_factors
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import EMBEDDED, open_checkpoint
from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import EtaSchedule, constant_eta
from lib.sampling.grid import Grid, make_grid
from lib.sampling.sampler import Inversion, Latent, Sampler

Predictor = Callable[[Tensor, int], Tensor]

EXACT: dict[str, Sampler] = {
    "edict": EdictSampler(),
    "edict, mixing 0.8": EdictSampler(0.8),
    "bdia": BdiaSampler(),
    "bdia, gamma 0.8": BdiaSampler(0.8),
    "ddpm, eta 0.1": DdpmSampler(constant_eta(0.1)),
    "ddpm, eta 0.5": DdpmSampler(constant_eta(0.5)),
    "ddpm, eta 1": DdpmSampler(constant_eta(1.0)),
    "ddpm, eta falls": DdpmSampler(EtaSchedule(((100, 0.2), (800, 1.0)))),
}
ALL = EXACT | {
    "ddim": DdimSampler(),
    "ddim, 2 refinements": DdimSampler(2),
    "ddpm above 400": DdpmSampler(EtaSchedule(((400, 0.0), (600, 1.0)))),
    "ddpm below 400": DdpmSampler(EtaSchedule(((400, 1.0), (401, 0.0)))),
}


class Counted:
    """A predictor that counts, and is given float32."""

    def __init__(self, predict: Predictor) -> None:
        self.predict = predict
        self.calls = 0

    def __call__(self, x_BLYX: Tensor, t: int) -> Tensor:
        self.calls += 1
        assert x_BLYX.dtype == torch.float32
        return self.predict(x_BLYX, t)


@torch.no_grad()
def invert(
    sampler: Sampler,
    predict: Predictor,
    grid: Grid,
    x0_BLYX: Tensor,
    last: int,
    wanted: Collection[int] = (),
    seeds: Sequence[int] | None = None,
) -> Inversion:
    counted = Counted(predict)
    seeds = seeds or range(50, 50 + len(x0_BLYX))
    found = sampler.invert(counted, grid, x0_BLYX, last=last, wanted=wanted, seeds=seeds)
    assert counted.calls == sampler.inversion_evaluations(max(last, *wanted, 0))
    assert set(found.x) == set(wanted)
    assert all(x_BLYX.dtype == torch.float32 for x_BLYX in found.x.values())
    assert set(found.noises) <= set(range(1, last + 1))
    return found


@torch.no_grad()
def decode(sampler: Sampler, predict: Predictor, grid: Grid, latent: Latent, last: int) -> Tensor:
    counted = Counted(predict)

    def steer_at(t: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        def steer(x_BLYX: Tensor) -> tuple[Tensor, Tensor]:
            eps_BLYX = counted(x_BLYX.float(), t)
            return eps_BLYX, eps_BLYX

        return steer

    states_SBLYX = latent.states_SLYX[:, None]
    for node in range(last, 0, -1):
        steer, noise_LYX = steer_at(grid.timestep(node)), latent.noises.get(node)
        states_SBLYX = sampler.step(steer, grid, node, states_SBLYX, noise_LYX)
    assert counted.calls == last * sampler.step_evaluations
    return states_SBLYX[0, 0].float()


def images(count: int, size: int) -> Tensor:
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    return torch.stack([torch.rand(3, size, size, generator=g) * 2 - 1 for g in generators])


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> Predictor:
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    return load_denoiser(checkpoint, torch.device("cpu"), "after").predict


@pytest.fixture(scope="module")
def embedded() -> Predictor:
    return load_denoiser(open_checkpoint(EMBEDDED), torch.device("cpu"), "after").predict


@pytest.fixture
def nonlinear() -> Predictor:
    """A network whose answer depends on x and t, far from constant over a step. It magnifies
    rounding, and so computes in float64: in float32 some processors' kernels round a product by
    the size of its batch.
    """
    generator = torch.Generator().manual_seed(3)
    weights_NN = torch.randn(48, 48, generator=generator).double() / 48**0.5

    def predict(x_BLYX: Tensor, t: int) -> Tensor:
        x_BN = x_BLYX.flatten(1).double()
        y_BN = 0.5 * x_BN + torch.sin(x_BN @ weights_NN * (1 + t / 500))
        return y_BN.float().view_as(x_BLYX)

    return predict


@pytest.mark.parametrize("spacing", ["linspace", "leading", "trailing"])
@pytest.mark.parametrize("name", EXACT)
def test_the_image_comes_back_from_every_node(
    nonlinear: Predictor, name: str, spacing: str
) -> None:
    grid, sampler, x0_BLYX = make_grid({}, 10, spacing), EXACT[name], images(2, 4)
    for last in (1, 5, 10):
        found = invert(sampler, nonlinear, grid, x0_BLYX, last)
        for row in range(2):
            back_LYX = decode(sampler, nonlinear, grid, found.latent(row), last)
            assert float((back_LYX - x0_BLYX[row]).abs().max()) < 5e-4
    naive = DdimSampler()
    latent = invert(naive, nonlinear, grid, x0_BLYX, 10).latent(0)
    back_LYX = decode(naive, nonlinear, grid, latent, 10)
    assert float((back_LYX - x0_BLYX[0]).abs().max()) > 0.1, "this network is a test for DDIM"


@pytest.mark.parametrize("name", EXACT)
def test_a_network_brings_the_image_back_from_the_middle(tiny: Predictor, name: str) -> None:
    """Inverted in a batch of three, decoded alone, so that kernels round differently; an untrained
    network magnifies that by what DDIM multiplies x with.
    """
    grid, sampler, x0_BLYX = make_grid({}, 40, "linspace"), EXACT[name], images(3, 16)
    last = grid.last_node(500)
    found = invert(sampler, tiny, grid, x0_BLYX, last)
    back_LYX = decode(sampler, tiny, grid, found.latent(1), last)
    assert float((back_LYX - x0_BLYX[1]).abs().max()) < 1e-4


@pytest.mark.parametrize("eta", [0.1, 0.5, 1.0])
def test_stored_noise_brings_a_face_back_from_the_last_timestep(
    embedded: Predictor, eta: float
) -> None:
    grid, x0_BLYX = make_grid({}, 20, "linspace"), render(sample_factors(2, 77), 64).image_BCHW
    sampler = DdpmSampler(constant_eta(eta))
    found = invert(sampler, embedded, grid, x0_BLYX, 20)
    back_LYX = decode(sampler, embedded, grid, found.latent(1), 20)
    assert float((back_LYX - x0_BLYX[1]).abs().max()) < 1e-4


@pytest.mark.parametrize("name", ALL)
def test_an_image_is_inverted_the_same_in_every_batch_and_to_every_node(
    nonlinear: Predictor, name: str
) -> None:
    grid, sampler, x0_BLYX = make_grid({}, 10, "linspace"), ALL[name], images(4, 4)
    whole = invert(sampler, nonlinear, grid, x0_BLYX, 4, wanted=(2, 7), seeds=[1, 2, 3, 4])
    alone = invert(sampler, nonlinear, grid, x0_BLYX[2:3], 4, seeds=[3])
    one, other = whole.latent(2), alone.latent(0)
    assert set(one.noises) == set(other.noises)
    torch.testing.assert_close(one.states_SLYX, other.states_SLYX, rtol=0, atol=1e-5)
    for node, z_LYX in one.noises.items():
        torch.testing.assert_close(z_LYX, other.noises[node], rtol=1e-4, atol=1e-4)
    at_seven = invert(sampler, nonlinear, grid, x0_BLYX, 7, seeds=[1, 2, 3, 4])
    torch.testing.assert_close(at_seven.states_SBLYX[0].float(), whole.x[7], rtol=0, atol=1e-6)
    assert torch.equal(
        invert(sampler, nonlinear, grid, x0_BLYX, 4, wanted=(4,)).x[4],
        invert(sampler, nonlinear, grid, x0_BLYX, 4).states_SBLYX[0].float(),
    )
