"""The PSNR of every image by itself, whatever its batch, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from lib.editing.edit_plan import every_strength
from lib.records import Inverted, Sample
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import constant_eta
from lib.sampling.grid import Grid
from lib.sampling.sampler import Sampler
from tasks.edit import Editor
from tasks.invert import Inverter
from tasks.reconstruct import Reconstructor

SAMPLERS: dict[str, Sampler] = {
    "ddim": DdimSampler(),
    "edict": EdictSampler(),
    "ddpm": DdpmSampler(constant_eta(0.5)),
}
LAST = 4


def inverted(linear: Any, grid: Grid, sampler: Sampler, samples: list[Sample]) -> list[Inverted]:
    stage = Inverter(linear, grid, last=LAST, keep=frozenset(), sampler=sampler, batch_size=3)
    return list(stage(samples, lambda failure: None))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_psnr_is_that_of_the_image_an_edit_run_would_store(
    linear: Any, grid: Grid, sample: Callable[..., Sample], name: str
) -> None:
    sampler, samples = SAMPLERS[name], [sample(i) for i in (0, 1, 2, 5)]
    items = inverted(linear, grid, sampler, samples)
    linear.rows.clear()
    stage = Reconstructor(linear, grid, sampler=sampler, last=LAST, batch_size=3)
    found = list(stage(items))
    assert linear.rows["predict"] == stage.evaluations * len(items)
    editor = Editor(
        linear, grid, sampler=sampler, window=(grid.timestep(LAST), 100), injection="asymmetric",
        plan=every_strength((0.1,)), batch_size=4, h_norms=dict.fromkeys(grid.timesteps, 1.0),
    )  # fmt: skip
    for item, measured in zip(items, found, strict=True):
        assert math.isnan(item.psnr)
        assert measured.sample is item.sample
        image_BCHW = editor.decode(item.latent, [])
        assert image_BCHW is not None
        expected = peak_signal_noise_ratio(
            item.sample.image_CHW.double().numpy(),
            image_BCHW[0].double().numpy() / 127.5 - 1,
            data_range=2,
        )
        assert measured.psnr == pytest.approx(expected, abs=0.05)
    assert np.median([one.psnr for one in found]) > (10 if name == "ddim" else 50)


def test_a_reconstruction_that_is_not_finite_has_no_psnr_and_rejects_nothing(
    linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    items = inverted(linear, grid, DdimSampler(), [sample(i) for i in range(3)])
    items[1].latent.states_SLYX[0, 0, 0, 0] = float("nan")
    stage = Reconstructor(linear, grid, sampler=DdimSampler(), last=LAST, batch_size=3)
    found = [one.psnr for one in stage(items)]
    assert [math.isnan(value) for value in found] == [False, True, False]
