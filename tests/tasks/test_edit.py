"""Edits of a linear network held against their closed form, and what an edit is said to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.direction import Direction
from lib.grid import Grid, make_grid
from lib.injection import step_weight
from lib.records import Discovered, Edited, Failure, Segmented
from tasks.edit import Editor, Shift

Factors = Callable[[Grid, int], tuple[float, float, float]]
WINDOW = (850, 300)
STRENGTHS = (-0.3, 0.2)


def h_norms(grid: Grid) -> dict[int, float]:
    """Different at every timestep, so that the wrong one is seen."""
    return {t: 0.012 * (0.5 + t / 1000) for t in grid.timesteps}


def make_editor(
    denoiser: Any,
    grid: Grid,
    injection: str,
    *,
    batch_size: int = 16,
    norms: Mapping[int, float] | None = None,
) -> Editor:
    return Editor(
        denoiser,
        grid,
        window=WINDOW,
        injection=injection,
        strengths=STRENGTHS,
        batch_size=batch_size,
        h_norms=norms or h_norms(grid),
    )


def edited_top(grid: Grid) -> int:
    """The highest node of the window, counted here."""
    return max(n for n in range(1, grid.num_steps + 1) if grid.timestep(n) <= WINDOW[0])


def latent_of(linear: Any, grid: Grid, factors: Factors, image_N: np.ndarray) -> Tensor:
    """The x at the top of the window that decodes to `image_N`: the steps' matrices, solved."""
    total_NN = np.eye(len(image_N))
    for node in range(edited_top(grid), 0, -1):
        a, b, _ = factors(grid, node)
        total_NN = (a * np.eye(len(image_N)) + b * linear.E_NN(grid.timestep(node))) @ total_NN
    return torch.from_numpy(np.linalg.solve(total_NN, image_N)).float().view(3, 4, 4)


def change_of(
    linear: Any, grid: Grid, factors: Factors, injection: str, shift: Shift
) -> np.ndarray:
    """Edited minus unedited image, (N,).

    With eps = E x + g M s for a shift s of h, a step is x' = a x + b eps. Symmetric injection
    feeds the shifted eps to both of its terms: d' = (a + b E) d + b g M s. Asymmetric injection
    feeds it to the predicted x_0 alone, whose part of b is c: d' = (a + b E) d + c g M s. Below
    the window s = 0. s is strength x weight x mean norm of h at t x unit direction.
    """
    d_N = np.zeros(len(linear.A_NN))
    weight = 20 / grid.num_steps if injection == "asymmetric" else 1.0
    for node in range(edited_top(grid), 0, -1):
        t = grid.timestep(node)
        a, b, from_x0 = factors(grid, node)
        d_N = a * d_N + b * linear.E_NN(t) @ d_N
        if WINDOW[1] <= t <= WINDOW[0]:
            found = shift.direction.timesteps
            step = min(range(len(found)), key=lambda i: abs(found[i] - t))
            s_D = shift.direction.vector_SCYX[step].flatten().double().numpy()
            s_D = shift.strength * weight * h_norms(grid)[t] * s_D
            c = from_x0 if injection == "asymmetric" else b
            d_N += c * linear.gain(t) * linear.M_ND @ s_D
    return d_N


@pytest.fixture
def shifts(direction: Callable[..., Direction]) -> list[Shift]:
    generator = torch.Generator().manual_seed(4)
    one = direction(torch.randn(1, 2, 2, 2, generator=generator))
    two = direction(torch.randn(2, 2, 2, 2, generator=generator), timesteps=(332, 832))
    return [Shift(d, s) for d in (one, two) for s in STRENGTHS]


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
@pytest.mark.parametrize("batch_size", [2, 16])
@pytest.mark.parametrize("num_steps", [6, 15])
def test_images_are_those_of_the_closed_form(
    linear: Any,
    factors: Factors,
    shifts: list[Shift],
    injection: str,
    batch_size: int,
    num_steps: int,
) -> None:
    grid = make_grid({}, num_steps, "trailing")
    image_N = np.random.default_rng(5).uniform(-0.5, 0.5, 48)
    start_LYX = latent_of(linear, grid, factors, image_N)
    images_BCHW = make_editor(linear, grid, injection, batch_size=batch_size).decode(
        start_LYX, shifts
    )
    assert images_BCHW is not None
    assert images_BCHW.dtype == torch.uint8
    changes = [np.zeros(48), *(change_of(linear, grid, factors, injection, s) for s in shifts)]
    largest = max(np.abs(change).max() for change in changes)
    assert 0.05 < largest < 0.5, "an edit that can be seen and is not clamped"
    for found_CHW, change_N in zip(images_BCHW, changes, strict=True):
        expected_N = (image_N + change_N + 1) * 127.5
        # Half a level of rounding, and float32 against float64.
        np.testing.assert_allclose(found_CHW.flatten().numpy(), expected_N, rtol=0, atol=0.51)


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_a_strength_means_the_same_at_every_number_of_steps(
    linear: Any, factors: Factors, shifts: list[Shift], injection: str
) -> None:
    """lib.injection.step_weight: asymmetric strengths are those of 20 steps, so the shift of a step
    is multiplied by 20 / N; a symmetric step is as strong as it is long and needs no weight.
    """
    image_N = np.zeros(48)
    changes = {}
    for num_steps in (40, 80, 160):
        grid = make_grid({}, num_steps, "trailing")
        images_BCHW = make_editor(linear, grid, injection).decode(
            latent_of(linear, grid, factors, image_N), shifts[:2]
        )
        assert images_BCHW is not None
        levels_BCHW = images_BCHW.float()
        changes[num_steps] = float((levels_BCHW[1:] - levels_BCHW[:1]).norm())
    assert step_weight("asymmetric", 20) == step_weight("symmetric", 20) == 1
    assert step_weight("asymmetric", 40) == 0.5
    assert step_weight("symmetric", 40) == 1
    assert changes[80] == pytest.approx(changes[40], rel=0.1)
    assert changes[160] == pytest.approx(changes[40], rel=0.1)


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_evaluations_are_counted_as_they_are_spent(
    linear: Any, grid: Grid, shifts: list[Shift], injection: str
) -> None:
    editor = make_editor(linear, grid, injection, batch_size=3)
    assert editor.edited_timesteps == (832, 332)
    editor.decode(torch.zeros(3, 4, 4), shifts)
    images = 1 + len(shifts)
    spent = linear.rows.total()
    assert spent == editor.shared_evaluations + images * editor.evaluations


def run(editor: Editor, items: Sequence[Discovered]) -> tuple[list[Edited], list[Failure]]:
    failures: list[Failure] = []
    return list(editor(items, failures.append)), failures


@pytest.fixture
def item(
    segmented: Callable[..., Segmented],
    discovered: Callable[..., Discovered],
    direction: Callable[..., Direction],
    halves: dict[str, Tensor],
) -> Callable[..., Discovered]:
    def make(index: int) -> Discovered:
        generator = torch.Generator().manual_seed(100 + index)
        x_LYX = 0.4 * torch.randn(3, 4, 4, generator=generator)
        left, right = (
            direction(torch.randn(1, 2, 2, 2, generator=generator), region, id_=region)
            for region in ("left", "right")
        )
        return discovered(segmented(index, x_LYX, 332, halves), left, right)

    return make


def test_changes_and_fidelity_are_those_of_the_written_pixels(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    (edited,), _ = run(make_editor(linear, grid, "asymmetric"), [item(0)])
    assert [(e.region.name, e.direction.id, e.strength) for e in edited.edits] == [
        (name, name, strength) for name in ("left", "right") for strength in STRENGTHS
    ]
    before = edited.reconstruction_CHW.double().numpy() / 127.5 - 1
    for edit in edited.edits:
        difference = np.abs(edit.image_CHW.double().numpy() / 127.5 - 1 - before)
        inside = halves[edit.region.name].numpy().astype(bool)
        assert edit.in_change == pytest.approx(difference[:, inside].mean(), rel=1e-5)
        assert edit.out_change == pytest.approx(difference[:, ~inside].mean(), rel=1e-5)
    original = edited.sample.image_CHW.double().numpy()
    expected = 10 * math.log10(4 / ((before - original) ** 2).mean())
    assert edited.psnr == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("injection", "where"), [("asymmetric", "decode"), ("symmetric", "predict_shifted")]
)
def test_one_image_that_goes_to_nan_is_rejected_and_the_others_are_untouched(
    linear: Any, grid: Grid, item: Any, mark: float, injection: str, where: str
) -> None:
    items = [item(i) for i in range(3)]
    editor = make_editor(linear, grid, injection)
    clean, _ = run(editor, items)
    items[1].segmented.inverted.start_LYX[0, 0, 0] = mark
    linear.broken_in = where
    edited, failures = run(editor, items)
    assert [(f.index, f.stage, f.kind) for f in failures] == [(1, "edit", "not_finite")]
    for found, same in zip(edited, (clean[0], clean[2]), strict=True):
        assert found.sample.index == same.sample.index
        assert torch.equal(found.reconstruction_CHW, same.reconstruction_CHW)
        for a, b in zip(found.edits, same.edits, strict=True):
            assert torch.equal(a.image_CHW, b.image_CHW)


def test_an_edit_too_strong_for_float_is_an_error_of_that_sample(
    linear: Any, grid: Grid, item: Any
) -> None:
    norms = dict.fromkeys(grid.timesteps, 3e38)
    edited, failures = run(make_editor(linear, grid, "asymmetric", norms=norms), [item(0)])
    assert not edited
    assert [f.kind for f in failures] == ["not_finite"]
