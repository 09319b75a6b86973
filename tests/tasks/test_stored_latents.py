"""What was inverted comes back from its file bit for bit, at no network evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lib.files.latent_files import StoredLatents, decode
from lib.records import Failure, Inverted, Sample
from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import EtaSchedule
from lib.sampling.grid import Grid
from lib.sampling.sampler import Sampler
from tasks.invert import Inverter
from tasks.stored_latents import LatentKeeper, StoredInverter

BOOSTED = DdimSampler(1, boost_below=700)
SAMPLERS: dict[str, Sampler] = {
    "ddim": DdimSampler(),
    "boosted": BOOSTED,
    "edict": EdictSampler(),
    "bdia": BdiaSampler(),
    "ddpm": DdpmSampler(EtaSchedule(((300, 0.0), (600, 1.0)))),
}
LAST, KEEP = 4, frozenset({2, 4, 5})


@pytest.fixture
def store(
    linear: Any, grid: Grid
) -> Callable[..., tuple[list[Inverted], StoredLatents, list[Failure]]]:
    """Invert and store."""

    def store(
        samples: list[Sample], sampler: Sampler, *, half: bool = False
    ) -> tuple[list[Inverted], StoredLatents, list[Failure]]:
        inverter = Inverter(linear, grid, last=LAST, keep=KEEP, sampler=sampler, batch_size=2)
        keeper = LatentKeeper(inverter, grid, sampler, last=LAST, half=half, source={"model": "m"})
        failures: list[Failure] = []
        found = list(keeper(samples, failures.append))
        return found, decode(keeper.finish(), "here"), failures

    return store


@pytest.fixture
def read(grid: Grid) -> Callable[..., tuple[list[Inverted], list[Failure]]]:
    def read(
        stored: StoredLatents, samples: list[Sample], sampler: Sampler, last: int = LAST
    ) -> tuple[list[Inverted], list[Failure]]:
        cpu = torch.device("cpu")
        keep = frozenset({2, 5})
        stage = StoredInverter(stored, grid, sampler, last=last, keep=keep, device=cpu)
        failures: list[Failure] = []
        return list(stage(samples, failures.append)), failures

    return read


def assert_same(found: Inverted, expected: Inverted) -> None:
    assert found.latent.states_SLYX.dtype == expected.latent.states_SLYX.dtype
    assert torch.equal(found.latent.states_SLYX, expected.latent.states_SLYX)
    assert set(found.latent.noises) == set(expected.latent.noises)
    for node, z_LYX in expected.latent.noises.items():
        assert torch.equal(found.latent.noises[node], z_LYX)
    for t, x_LYX in found.states_LYX.items():
        assert torch.equal(x_LYX, expected.states_LYX[t])


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_what_comes_back_is_what_went_on(
    store: Any, read: Any, linear: Any, sample: Callable[..., Sample], name: str, half: bool
) -> None:
    samples = [sample(i) for i in range(3)]
    inverted, stored, failures = store(samples, SAMPLERS[name], half=half)
    linear.rows.clear()
    found, refused = read(stored, samples, SAMPLERS[name])
    assert (failures, refused, len(found)) == ([], [], 3)
    assert not linear.rows, "no evaluation"
    for one, other in zip(found, inverted, strict=True):
        assert_same(one, other)
        assert set(one.states_LYX) == {332, 832}


def test_noise_that_the_image_does_not_decide_is_drawn_again(
    store: Any, read: Any, sample: Callable[..., Sample]
) -> None:
    samples = [sample(i) for i in range(3)]
    boosted, stored, _ = store(samples, BOOSTED)
    assert set(boosted[0].latent.noises) == {2, 3, 4}, "666, 499 and 332; into the image none"
    assert stored.noises == {}
    plain, _ = read(stored, samples, DdimSampler(1))
    assert plain[0].latent.noises == {}
    _, from_plain, _ = store(samples, DdimSampler(1))
    for one, other in zip(read(from_plain, samples, BOOSTED)[0], boosted, strict=True):
        assert_same(one, other)


def test_decoding_may_begin_at_a_stored_x_below(
    store: Any, read: Any, linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    samples, sampler = [sample(i) for i in range(3)], SAMPLERS["ddpm"]
    _, stored, _ = store(samples, sampler)
    found, _ = read(stored, samples, sampler, last=2)
    below = Inverter(linear, grid, last=2, keep=frozenset({2}), sampler=sampler, batch_size=2)
    for one, other in zip(found, below(samples, lambda failure: None), strict=True):
        assert_same(replace(one, states_LYX={}), other)


def test_who_could_not_be_inverted_fails_with_the_same_words(
    store: Any, read: Any, linear: Any, sample: Callable[..., Sample]
) -> None:
    samples = [sample(i) for i in range(4)]
    samples[1] = replace(samples[1], image_CHW=torch.full_like(samples[1].image_CHW, math.nan))
    _, stored, failures = store(samples, DdimSampler())
    found, refused = read(stored, samples, DdimSampler())
    assert refused == failures
    assert [(f.index, f.stage, f.kind) for f in refused] == [(1, "invert", "not_finite")]
    assert [inverted.sample.index for inverted in found] == [0, 2, 3]


def test_an_image_without_a_latent_of_its_own_is_rejected(
    store: Any, read: Any, sample: Callable[..., Sample]
) -> None:
    samples = [sample(i) for i in range(4)]
    _, stored, _ = store(samples[:3], DdimSampler())
    samples[1] = replace(samples[1], image_CHW=samples[1].image_CHW.flip(-1))
    found, refused = read(stored, samples, DdimSampler())
    assert [(f.index, f.kind) for f in refused] == [(1, "no_latent"), (3, "no_latent")]
    assert [inverted.sample.index for inverted in found] == [0, 2]


def test_what_float16_cannot_hold_is_rejected_and_nothing_to_store_is_no_file(
    store: Any, read: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    samples = [sample(i) for i in range(2)]
    samples[0] = replace(samples[0], image_CHW=samples[0].image_CHW * 1e6)
    found, stored, failures = store(samples, DdimSampler(), half=True)
    assert [inverted.sample.index for inverted in found] == [1]
    assert "float16 cannot hold" in failures[0].message
    assert read(stored, samples, DdimSampler())[1] == failures
    _, stored, failures = store(samples[:1], DdimSampler(), half=True)
    assert read(stored, samples[:1], DdimSampler()) == ([], failures)
    nothing = LatentKeeper(
        lambda items, reject: iter(()), grid, DdimSampler(), last=LAST, half=False, source={}
    )
    assert list(nothing([], failures.append)) == []
    assert nothing.finish() == b""
