"""Edits of a linear network held against their closed form, and what an edit is said to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.direction import WHOLE, Direction
from lib.directions.direction_reach import refuse_out_of_reach
from lib.editing.edit_plan import every_strength
from lib.problems import ConfigProblem
from lib.records import Discovered, Edited, Failure, Segmented
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid, make_grid
from lib.sampling.sampler import Latent, plain_latent
from lib.shift import Shift
from tasks.edit import Editor

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
        sampler=DdimSampler(),
        plan=every_strength(STRENGTHS),
        batch_size=batch_size,
        h_norms=norms or h_norms(grid),
    )


def edited_top(grid: Grid) -> int:
    """The highest node of the window, counted here."""
    return max(n for n in range(1, grid.num_steps + 1) if grid.timestep(n) <= WINDOW[0])


def latent_of(linear: Any, grid: Grid, factors: Factors, image_N: np.ndarray) -> Latent:
    """The x at the top of the window that decodes to `image_N`: the steps' matrices, solved."""
    total_NN = np.eye(len(image_N))
    for node in range(edited_top(grid), 0, -1):
        a, b, _ = factors(grid, node)
        total_NN = (a * np.eye(len(image_N)) + b * linear.E_NN(grid.timestep(node))) @ total_NN
    x_N = torch.from_numpy(np.linalg.solve(total_NN, image_N)).float()
    return plain_latent(x_N.view(3, 4, 4))


def weights(grid: Grid, injection: str, window: tuple[int, int] = WINDOW) -> dict[int, float]:
    """Node -> timesteps of the window that belong to it, counted one by one: the nearest ones, half
    of a tie each, in units of 1000 / 20; or, symmetric, those between it and the node below (above
    the highest node: its own) as a part of that step.
    """
    nodes = [n for n in range(1, grid.num_steps + 1) if window[1] <= grid.timestep(n) <= window[0]]
    found = dict.fromkeys(nodes, 0.0)
    for t in range(window[1], window[0] + 1):
        if injection == "asymmetric":
            distances = {n: abs(grid.timestep(n) - t) for n in nodes}
            owners = [n for n in nodes if distances[n] == min(distances.values())]
            unit = 50
        else:
            owners = [next((n for n in nodes if t <= grid.timestep(n)), nodes[-1])]
            below = grid.timestep(owners[0] - 1) if owners[0] > 1 else -1
            unit = grid.timestep(owners[0]) - below
        for n in owners:
            found[n] += 1 / len(owners) / unit
    return found


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
    weight = weights(grid, injection)
    for node in range(edited_top(grid), 0, -1):
        t = grid.timestep(node)
        a, b, from_x0 = factors(grid, node)
        d_N = a * d_N + b * linear.E_NN(t) @ d_N
        if WINDOW[1] <= t <= WINDOW[0]:
            found = shift.direction.timesteps
            step = min(range(len(found)), key=lambda i: abs(found[i] - t))
            s_D = shift.direction.vector_SCYX[step].flatten().double().numpy()
            s_D = shift.strength * weight[node] * h_norms(grid)[t] * s_D
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
    latent = latent_of(linear, grid, factors, image_N)
    images_BCHW = make_editor(linear, grid, injection, batch_size=batch_size).decode(latent, shifts)
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
@pytest.mark.parametrize("batch_size", [2, 16])
@pytest.mark.parametrize(
    ("timesteps", "norm"), [((340,), 2.0), ((840,), 0.2), ((1,), 4.0), ((500, 840), 0.2)]
)
def test_a_direction_of_x_moves_x_once_at_its_own_timestep(
    linear: Any,
    grid: Grid,
    factors: Factors,
    direction: Callable[..., Direction],
    injection: str,
    batch_size: int,
    timesteps: tuple[int, ...],
    norm: float,
) -> None:
    """Beside a direction of h, with one step or two of half the strength each; decoding counts
    what it spends.
    """
    generator = torch.Generator().manual_seed(6)
    vector_SCYX = torch.randn(len(timesteps), 3, 4, 4, generator=generator)
    of_x = replace(direction(vector_SCYX, timesteps=timesteps), space="x", h_norm=norm)
    of_h = direction(torch.randn(1, 2, 2, 2, generator=generator))
    shifts = [Shift(of_h, 0.1), Shift(of_x, 0.1), Shift(of_x, -0.05)]
    image_N = np.random.default_rng(5).uniform(-0.2, 0.2, 48)
    editor = make_editor(linear, grid, injection, batch_size=batch_size)
    latent = latent_of(linear, grid, factors, image_N)
    linear.rows.clear()
    assert editor.decoder(latent, shifts).evaluations == linear.rows.total()
    images_BCHW = editor.decode(latent, shifts)
    assert images_BCHW is not None
    for shift, found_CHW in zip(shifts[1:], images_BCHW[2:], strict=True):
        d_N = np.zeros(48)
        for node in range(edited_top(grid), 0, -1):
            for step, t in enumerate(timesteps):
                if node == 1 + min(range(6), key=lambda i: abs(grid.timesteps[i] - t)):
                    v_N = of_x.vector_SCYX[step].flatten().double().numpy()
                    d_N = d_N + shift.strength * norm / len(timesteps) * v_N
            a, b, _ = factors(grid, node)
            d_N = a * d_N + b * linear.E_NN(grid.timestep(node)) @ d_N
        assert 0.01 < np.abs(d_N).max() < 0.7
        expected_N = (image_N + d_N + 1) * 127.5
        np.testing.assert_allclose(found_CHW.flatten().numpy(), expected_N, rtol=0, atol=0.51)


def test_a_direction_with_a_window_of_its_own_is_shifted_only_inside_it(
    linear: Any, grid: Grid, direction: Callable[..., Direction]
) -> None:
    """As the same direction in a run with that window, once decoding has come down to it."""
    anywhere = direction(torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(3)))
    narrow = replace(anywhere, window=(500, 400))
    latent = plain_latent(torch.zeros(3, 4, 4))
    found = make_editor(linear, grid, "symmetric").decode(latent, [Shift(narrow, 2.0)])
    editor = Editor(
        linear, grid, window=(500, 400), injection="symmetric", batch_size=4,
        plan=every_strength([2.0]), sampler=DdimSampler(), h_norms=h_norms(grid),
    )  # fmt: skip
    expected = editor.decode(latent, [Shift(anywhere, 2.0)])
    assert found is not None
    assert expected is not None
    assert not torch.equal(found[0], found[1])
    assert torch.equal(found, expected)


def test_directions_that_would_do_nothing_are_refused(
    grid: Grid, direction: Callable[..., Direction]
) -> None:
    above = replace(direction(torch.ones(1, 3, 4, 4), timesteps=(990,)), space="x")
    with pytest.raises(ConfigProblem, match=r"moves x at timestep 990, and decoding begins at 832"):
        refuse_out_of_reach([above], grid, WINDOW)
    elsewhere = replace(direction(torch.ones(1, 2, 2, 2)), window=(250, 100))
    with pytest.raises(ConfigProblem, match=r"is to be applied in \[250, 100\]"):
        refuse_out_of_reach([elsewhere], grid, WINDOW)
    refuse_out_of_reach([replace(elsewhere, window=(400, 100))], grid, WINDOW)


def test_the_region_of_a_direction_of_the_whole_image_is_all_of_it(
    linear: Any,
    grid: Grid,
    segmented: Callable[..., Segmented],
    discovered: Callable[..., Discovered],
    direction: Callable[..., Direction],
    halves: dict[str, Tensor],
) -> None:
    whole = direction(torch.ones(1, 2, 2, 2), WHOLE)
    item = discovered(segmented(0, torch.zeros(3, 4, 4), 332, halves), whole)
    (edited,), _ = run(make_editor(linear, grid, "asymmetric"), [item])
    (edit, _) = edited.edits
    assert edit.region.name == "image"
    assert bool((edit.region.mask_HW == 1).all())


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_a_strength_means_the_same_at_every_number_of_steps(
    linear: Any, factors: Factors, shifts: list[Shift], injection: str
) -> None:
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
    assert changes[40] == pytest.approx(changes[80], rel=0.1)
    assert changes[160] == pytest.approx(changes[80], rel=0.1)


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_evaluations_are_counted_as_they_are_spent(
    linear: Any, grid: Grid, shifts: list[Shift], injection: str
) -> None:
    editor = make_editor(linear, grid, injection, batch_size=3)
    assert editor.edited_timesteps == (832, 332)
    decoded = editor.decoder(plain_latent(torch.zeros(3, 4, 4)), shifts)
    # Nodes 5..1 are decoded and 5..2 edited. The reconstruction needs one evaluation at each, an
    # edit one where it begins, and below it two in the window if the unshifted noise is wanted too.
    below = {"asymmetric": 2, "symmetric": 1}[injection]
    assert decoded.evaluations == linear.rows.total() == 5 + len(shifts) * (1 + 3 * below + 1)


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


def test_edits_come_by_direction_and_strength_with_the_region_of_the_direction(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    (edited,), _ = run(make_editor(linear, grid, "asymmetric"), [item(0)])
    assert [(e.region.name, e.shift.direction.id, e.shift.strength) for e in edited.edits] == [
        (name, name, strength) for name in ("left", "right") for strength in STRENGTHS
    ]
    for edit in edited.edits:
        assert torch.equal(edit.region.mask_HW, halves[edit.region.name])


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_one_image_that_goes_to_nan_is_rejected_and_the_others_are_untouched(
    linear: Any, grid: Grid, item: Any, mark: float, injection: str
) -> None:
    items = [item(i) for i in range(3)]
    editor = make_editor(linear, grid, injection)
    clean, _ = run(editor, items)
    items[1].segmented.inverted.latent.x_LYX[0, 0, 0] = mark
    linear.broken_in = "decode"
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
