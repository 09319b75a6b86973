"""Edits at a direction's own timesteps, guided edits of x_t, and the guard, on the linear network.

Shape suffixes: as in `conftest`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.direction import Direction
from lib.directions.direction_reach import refuse_out_of_reach
from lib.editing.edit_plan import every_strength
from lib.editing.region_guard import RegionGuard
from lib.editing.x_guidance import Guidance
from lib.problems import ConfigProblem
from lib.records import Discovered, Segmented
from lib.regions import make_region
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid
from lib.sampling.sampler import plain_latent
from lib.shift import Shift
from tasks.edit import Editor

WINDOW = (850, 300)
H_NORM = 0.05
SCALE, STEPS, REACH = 0.3, 3, 0.7


def make_editor(denoiser: Any, grid: Grid, **options: Any) -> Editor:
    given: dict[str, Any] = {
        "window": WINDOW,
        "injection": "asymmetric",
        "sampler": DdimSampler(),
        "plan": every_strength((1.0,)),
        "batch_size": 16,
        "h_norms": dict.fromkeys(grid.timesteps, H_NORM),
    }
    return Editor(denoiser, grid, **(given | options))


def random_x(seed: int) -> Tensor:
    return 0.004 * torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(seed))


def decoded(linear: Any, grid: Grid, factors: Any, change_N: np.ndarray, node: int) -> np.ndarray:
    """What a change of x at a node is at node 0."""
    for n in range(node, 0, -1):
        a, b, _ = factors(grid, n)
        change_N = a * change_N + b * linear.E_NN(grid.timestep(n)) @ change_N
    return change_N


@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_a_direction_found_at_two_timesteps_acts_there_alone(
    linear: Any, grid: Grid, factors: Any, direction: Callable[..., Direction], injection: str
) -> None:
    """499 and 350 lie nearest to nodes 3 and 2 (499, 332): one step of a grid of 20 each."""
    generator = torch.Generator().manual_seed(1)
    two = direction(torch.randn(2, 2, 2, 2, generator=generator), timesteps=(499, 350))
    editor = make_editor(linear, grid, injection=injection, reach="found")
    found = editor.decoder(plain_latent(random_x(2)), [Shift(two, 0.4)])
    expected_N = np.zeros(48)
    for node, step in ((3, 0), (2, 1)):
        t = grid.timestep(node)
        _, b, from_x0 = factors(grid, node)
        v_D = two.vector_SCYX[step].flatten().double().numpy()
        length = (
            0.4 * H_NORM * (1 if injection == "asymmetric" else 50 / (t - grid.timestep(node - 1)))
        )
        c = from_x0 if injection == "asymmetric" else b
        d_N = c * linear.gain(t) * linear.M_ND @ v_D * length
        expected_N += decoded(linear, grid, factors, d_N, node - 1)
    change_N = (found.x_BLYX[1] - found.x_BLYX[0]).flatten().numpy()
    assert np.abs(expected_N).max() > 1e-3
    np.testing.assert_allclose(change_N, expected_N, atol=2e-6)


def test_a_direction_found_outside_the_window_is_refused(
    grid: Grid, direction: Callable[..., Direction]
) -> None:
    low = direction(torch.ones(1, 2, 2, 2), timesteps=(10,))
    refuse_out_of_reach([low], grid, WINDOW)
    with pytest.raises(ConfigProblem, match=r"edit\.reach: direction d was found at .* \[10\]"):
        refuse_out_of_reach([low], grid, WINDOW, "found")


def directions_of_x(direction: Callable[..., Direction], *timesteps: int) -> list[Direction]:
    generator = torch.Generator().manual_seed(8)
    return [
        replace(
            direction(torch.randn(1, 3, 4, 4, generator=generator), timesteps=(t,)),
            space="x",
            h_norm=48**0.5,
        )
        for t in timesteps
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_guidance_follows_its_recursion(
    linear: Any, grid: Grid, factors: Any, direction: Callable[..., Direction], batch_size: int
) -> None:
    """On eps = E x: x' = x + s (E (x + d v) - E x) = x + s d E v, as often as it is repeated;
    edits at two timesteps, alone, combined and beside a direction of h.
    """
    upper, lower = directions_of_x(direction, 666, 340)
    of_h = direction(torch.ones(1, 2, 2, 2))
    edits = [
        Shift(upper, 0.5),
        Shift(of_h, 0.2),
        Shift(upper, -0.25),
        Shift(lower, 1.0),
        Shift(upper, 0.5, (Shift(lower, -1.0),)),
    ]
    guidance = Guidance(SCALE, STEPS, REACH)
    editor = make_editor(linear, grid, x_edit=guidance, batch_size=batch_size)
    linear.rows.clear()
    found = editor.decoder(plain_latent(random_x(3)), edits)
    assert found.evaluations == linear.rows.total()

    def moved(one: Direction, node: int, strength: float) -> np.ndarray:
        v_N = one.vector_SCYX[0].flatten().double().numpy()
        d_N = STEPS * strength * SCALE * REACH * linear.E_NN(grid.timestep(node)) @ v_N
        return decoded(linear, grid, factors, d_N, node)

    up_N, low_N = moved(upper, 4, 1.0), moved(lower, 2, 1.0)
    expected = {0: 0.5 * up_N, 2: -0.25 * up_N, 3: low_N, 4: 0.5 * up_N - low_N}
    for edit, expected_N in expected.items():
        change_N = (found.x_BLYX[1 + edit] - found.x_BLYX[0]).flatten().numpy()
        assert np.abs(expected_N).max() > 0.01
        np.testing.assert_allclose(change_N, expected_N, atol=5e-6)


def test_guided_edits_that_begin_together_share_the_unprobed_prediction(
    linear: Any, grid: Grid, direction: Callable[..., Direction]
) -> None:
    (upper,) = directions_of_x(direction, 666)
    editor = make_editor(linear, grid, x_edit=Guidance(SCALE, STEPS, REACH), injection="symmetric")
    linear.rows.clear()
    found = editor.decoder(plain_latent(random_x(3)), [Shift(upper, s) for s in (0.1, 0.2, 0.3)])
    # Nodes 5..1 for the reconstruction, 4..1 for each edit; guidance: 1 + 3, then 3 + 3 twice.
    assert found.evaluations == linear.rows.total() == 5 + 3 * 4 + (1 + 3) + 2 * (3 + 3)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
@pytest.mark.parametrize("injection", ["asymmetric", "symmetric"])
def test_edits_decoded_together_are_those_decoded_one_by_one(
    linear: Any, grid: Grid, direction: Callable[..., Direction], batch_size: int, injection: str
) -> None:
    """Joining at different nodes, guarded or not, of h and of x."""
    generator = torch.Generator().manual_seed(9)
    wide = direction(torch.randn(1, 2, 2, 2, generator=generator))
    narrow = replace(wide, window=(500, 400))
    (of_x,) = directions_of_x(direction, 340)
    edits = [Shift(narrow, 0.3), Shift(of_x, 0.05), Shift(wide, -0.3), Shift(narrow, 0.1)]
    guard = RegionGuard(0.2, 0.3)
    corner_HW = torch.zeros(4, 4)
    corner_HW[:2, :1] = 1
    kept = [guard.mask(corner_HW.roll(i, 1), (3, 4, 4)) for i in range(len(edits))]
    latent = plain_latent(random_x(5))
    for masks in ([], kept):
        editor = make_editor(linear, grid, injection=injection, batch_size=batch_size)
        together = editor.decoder(latent, edits, masks)
        for i, edit in enumerate(edits):
            alone = editor.decoder(latent, [edit], masks[i : i + 1])
            np.testing.assert_allclose(together.x_BLYX[1 + i], alone.x_BLYX[1], atol=2e-6)


def test_the_guard_leaves_the_outside_as_it_was_and_the_inside_edited(
    linear: Any,
    grid: Grid,
    segmented: Callable[..., Segmented],
    discovered: Callable[..., Discovered],
    direction: Callable[..., Direction],
    halves: dict[str, Tensor],
) -> None:
    left = direction(torch.randn(1, 2, 2, 2, generator=torch.Generator().manual_seed(2)), "left")
    item = discovered(segmented(0, random_x(1), 332, halves), left)
    plan = every_strength((3.0,))
    (free,) = make_editor(linear, grid, plan=plan)([item], lambda _: None)
    guarded_editor = make_editor(linear, grid, plan=plan, guard=RegionGuard(0.0, 0.0))
    (held,) = guarded_editor([item], lambda _: None)
    assert torch.equal(held.reconstruction_CHW, free.reconstruction_CHW)
    outside_HW = halves["left"] == 0
    moved_CHW = free.edits[0].image_CHW.int() - free.reconstruction_CHW.int()
    assert float(moved_CHW[:, outside_HW].abs().float().mean()) > 1
    kept_CHW = held.edits[0].image_CHW.int() - held.reconstruction_CHW.int()
    assert not kept_CHW[:, outside_HW].any()
    assert float(kept_CHW[:, ~outside_HW].abs().float().mean()) > 1
    images_BCHW = guarded_editor.decode(
        item.segmented.inverted.latent, [Shift(left, 3.0)], [make_region("left", halves["left"])]
    )
    assert images_BCHW is not None
    assert torch.equal(images_BCHW[1], held.edits[0].image_CHW)
    with pytest.raises(ValueError, match="needs 1 regions, got 0"):
        guarded_editor.decode(item.segmented.inverted.latent, [Shift(left, 3.0)])
