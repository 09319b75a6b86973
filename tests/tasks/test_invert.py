"""Inversion against its closed form for a linear network, and batches cut by position."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lib.editing.edit_plan import every_strength
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.records import Failure, Inverted, Sample
from lib.sampling.ddim import decoding
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid, make_grid
from tasks.edit import Editor
from tasks.invert import Inverter


def invert(
    denoiser: Any,
    grid: Grid,
    samples: list[Sample],
    *,
    last: int,
    keep: frozenset[int] = frozenset(),
    refinements: int = 0,
    batch_size: int = 4,
) -> tuple[list[Inverted], list[Failure]]:
    inverter = Inverter(
        denoiser,
        grid,
        last=last,
        keep=keep,
        sampler=DdimSampler(refinements),
        batch_size=batch_size,
    )
    failures: list[Failure] = []
    return list(inverter(samples, failures.append)), failures


@pytest.mark.parametrize("refinements", [0, 2])
def test_latents_are_those_of_the_closed_form(
    linear: Any,
    grid: Grid,
    factors: Callable[..., tuple[float, float, float]],
    sample: Callable[..., Sample],
    refinements: int,
) -> None:
    """A decoding step is x_{i-1} = a x_i + b eps; solved for x_i with eps = E_i y it is
    x_i = (x_{i-1} - b E_i y) / a, where y is x_{i-1} first and the last x_i then.
    """
    samples = [sample(i) for i in range(3)]
    (first, *rest), failures = invert(
        linear, grid, samples, last=5, keep=frozenset({2}), refinements=refinements
    )
    assert not failures
    assert [r.sample.index for r in rest] == [1, 2]
    x_N = samples[0].image_CHW.flatten().double().numpy()
    expected = {}
    for node in range(1, 6):
        a, b, _ = factors(grid, node)
        guess_N = x_N
        for _ in range(1 + refinements):
            guess_N = (x_N - b * linear.E_NN(grid.timestep(node)) @ guess_N) / a
        x_N = guess_N
        expected[node] = x_N
    np.testing.assert_allclose(first.latent.x_LYX.flatten(), expected[5], rtol=0, atol=2e-6)
    assert set(first.states_LYX) == {grid.timestep(2)}
    np.testing.assert_allclose(
        first.states_LYX[grid.timestep(2)].flatten(), expected[2], rtol=0, atol=2e-6
    )


def test_constant_noise_comes_back_exactly(linear: Any, grid: Grid, sample: Any) -> None:
    """With eps the same on both ways a decoding step undoes the inversion step."""
    noise_LYX = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(7))
    linear.predict = lambda x_BLYX, t: noise_LYX.expand_as(x_BLYX)
    for last in (1, 4, 6):
        (inverted,), _ = invert(linear, grid, [sample(0)], last=last)
        back_LYX = decoding(linear.predict, grid, inverted.latent.x_LYX[None], first=last)[0]
        # float32, and the last node multiplies rounding by 1 / sqrt(alpha_bar(999)) = 160.
        torch.testing.assert_close(back_LYX, sample(0).image_CHW, rtol=0, atol=1e-4)


def test_unshifted_decode_returns_the_image_as_refinements_go_on(
    tiny_checkpoint: Path, sample: Any, shards: Any
) -> None:
    """The fixed point of the refined step is the exact inverse, so the loss falls to rounding."""
    denoiser = load_denoiser(open_checkpoint(str(tiny_checkpoint)), torch.device("cpu"), "after")
    grid = make_grid({}, 20, "trailing")
    pixels = torch.from_numpy(np.array(shards.picture(3))).permute(2, 0, 1)
    start = sample(0, pixels.float() / 127.5 - 1, size=16)
    editor = Editor(
        denoiser,
        grid,
        window=(500, 100),
        injection="asymmetric",
        sampler=DdimSampler(),
        plan=every_strength((0.1,)),
        batch_size=4,
        h_norms=dict.fromkeys(grid.timesteps, 1.0),
    )
    worst = []
    for refinements in (0, 2, 20):
        (inverted,), _ = invert(
            denoiser, grid, [start], last=grid.last_node(500), refinements=refinements
        )
        image_BCHW = editor.decode(inverted.latent, [])
        assert image_BCHW is not None
        assert image_BCHW.shape == (1, 3, 16, 16)
        worst.append(int((image_BCHW[0].int() - pixels.int()).abs().max()))
    assert worst[0] > worst[1] > worst[2]
    assert worst[2] <= 1


def test_one_image_that_goes_to_nan_is_rejected_and_the_others_are_untouched(
    linear: Any, grid: Grid, sample: Any, mark: float
) -> None:
    samples = [sample(i) for i in range(4)]
    clean, _ = invert(linear, grid, samples, last=3)
    samples[2].image_CHW[0, 0, 0] = mark
    linear.broken_in = "predict"
    inverted, failures = invert(linear, grid, samples, last=3)
    assert [(f.index, f.key, f.stage, f.kind) for f in failures] == [
        (2, "k2", "invert", "not_finite")
    ]
    assert [i.sample.index for i in inverted] == [0, 1, 3]
    for one in inverted:
        assert torch.equal(one.latent.x_LYX, clean[one.sample.index].latent.x_LYX)


def test_a_missing_sample_moves_none_of_the_others_to_another_batch(
    linear: Any, grid: Grid, sample: Any
) -> None:
    samples = [sample(i) for i in range(7)]
    whole, _ = invert(linear, grid, samples, last=1, batch_size=3)
    assert linear.batches == [3, 3, 1]
    linear.batches.clear()
    del samples[1]
    inverted, _ = invert(linear, grid, samples, last=1, batch_size=3)
    assert linear.batches == [2, 3, 1]
    assert [i.sample.index for i in inverted] == [0, 2, 3, 4, 5, 6]
    for one in inverted[2:]:
        assert torch.equal(one.latent.x_LYX, whole[one.sample.index].latent.x_LYX)


def test_stops_at_the_edit_timestep_and_counts_what_it_spends(
    linear: Any, grid: Grid, sample: Any
) -> None:
    for last, keep, refinements in ((3, {2}, 0), (2, {4}, 1), (1, set(), 2)):
        linear.rows.clear()
        inverter = Inverter(
            linear,
            grid,
            last=last,
            keep=frozenset(keep),
            sampler=DdimSampler(refinements),
            batch_size=2,
        )
        assert len(list(inverter([sample(0), sample(1)], lambda _: None))) == 2
        assert linear.rows["predict"] == 2 * inverter.evaluations
