"""The SDEdit stage on a linear network, whose answers are known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.records import Edited, Failure, Sample
from lib.sampling.grid import Grid
from lib.sampling.sampler import seeded_noise
from tasks.sdedit import Renoiser

NODES, NOISES = (2, 5), 3


def edited(
    denoiser: Any, grid: Grid, samples: list[Sample], *, batch_size: int = 16
) -> tuple[list[Edited], list[Failure]]:
    failures: list[Failure] = []
    stage = Renoiser(denoiser, grid, nodes=NODES, noises=NOISES, batch_size=batch_size)
    return list(stage(samples, failures.append)), failures


def test_an_edit_is_the_decode_of_the_noised_image(
    linear: Any, grid: Grid, sample: Callable[..., Sample], factors: Any
) -> None:
    """x_t = sqrt(a) x_0 + sqrt(1 - a) z, then x' = (a I + b E_t) x at every node, in float64."""
    ((found,), failures) = edited(linear, grid, [sample(3)])
    assert failures == []
    x0_N = sample(3).image_CHW.double().numpy().ravel()
    assert [(e.shift.timestep, e.shift.noise) for e in found.edits] == [
        (grid.timestep(node), noise) for node in NODES for noise in range(NOISES)
    ]
    for edit in found.edits:
        node = 1 + grid.timesteps.index(edit.shift.timestep)
        z_N = seeded_noise([1003], 1001 + edit.shift.noise, (3, 4, 4)).double().numpy().ravel()
        assert edit.shift.level == pytest.approx(np.sqrt(1 - grid.alphas[node]))
        x_N = np.sqrt(grid.alphas[node]) * x0_N + edit.shift.level * z_N
        for step in range(node, 0, -1):
            a, b, _ = factors(grid, step)
            x_N = a * x_N + b * linear.E_NN(grid.timestep(step)) @ x_N
        expected = np.clip((x_N + 1) * 127.5, 0, 255).reshape(3, 4, 4)
        assert np.abs(edit.image_CHW.numpy() - expected).max() < 0.51


def test_one_noise_serves_all_timesteps_and_noises_and_images_differ(
    linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    noised: list[Tensor] = []
    predict = linear.predict

    def recording(x_BLYX: Tensor, t: int) -> Tensor:
        noised.append(x_BLYX.clone())
        return predict(x_BLYX, t)  # type: ignore[no-any-return]

    linear.predict = recording
    edited(linear, grid, [sample(0), sample(1)], batch_size=1)
    starts = [noised[i] for i in np.cumsum([0, *([5] * 3 + [2] * 3) * 2])[:-1]]
    found = []
    for i, x_BLYX in enumerate(starts):
        node = 5 if i % 6 < 3 else 2
        clean_CHW = sample(i // 6).image_CHW
        alpha = grid.alphas[node]
        found.append((x_BLYX[0] - np.sqrt(alpha) * clean_CHW) / np.sqrt(1 - alpha))
    for image in (0, 6):
        for noise in range(3):
            torch.testing.assert_close(found[image + noise], found[image + 3 + noise])
    distinct = [found[i] for i in (0, 1, 2, 6, 7, 8)]
    gram = torch.stack(distinct).flatten(1) @ torch.stack(distinct).flatten(1).T / 48
    assert float((gram - gram.diag().diag()).abs().max()) < 0.6, "48 entries: std 0.14"


def test_nothing_is_inverted_and_every_call_of_the_network_is_counted(
    linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    ((found,), _) = edited(linear, grid, [sample(0)])
    assert found.network_evaluations == sum(NODES) * NOISES == linear.rows.total()
    assert set(linear.rows) == {"predict"}
    assert linear.batches == [3, 3, 3, 6, 6], "those of the lower node join there"


def test_the_reconstruction_is_the_image_itself(
    linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    ((found,), _) = edited(linear, grid, [sample(2)])
    expected = ((sample(2).image_CHW + 1) * 127.5).round()
    torch.testing.assert_close(found.reconstruction_CHW.float(), expected)
    assert found.sample.index == 2
    assert found.found == ()
    for edit in found.edits:
        assert edit.region.name == "image"
        assert float(edit.region.mask_HW.min()) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_other_batches_make_the_same_pictures(
    linear: Any, grid: Grid, sample: Callable[..., Sample], batch_size: int
) -> None:
    samples = [sample(0), sample(1)]
    usual, _ = edited(linear, grid, samples)
    other, _ = edited(linear, grid, samples, batch_size=batch_size)
    for one, two in zip(usual, other, strict=True):
        assert one.network_evaluations == two.network_evaluations
        for a, b in zip(one.edits, two.edits, strict=True):
            assert a.shift == b.shift
            assert int((a.image_CHW.int() - b.image_CHW.int()).abs().max()) <= 1


def test_an_image_that_drives_the_network_to_nan_is_an_error_of_its_own(
    linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    broken_CHW = torch.zeros(3, 4, 4)
    broken_CHW[0, 0, 0] = float("nan")
    found, failures = edited(linear, grid, [sample(0), sample(1, broken_CHW), sample(2)])
    assert [e.sample.index for e in found] == [0, 2]
    assert [(f.index, f.stage, f.kind) for f in failures] == [(1, "edit", "not_finite")]
