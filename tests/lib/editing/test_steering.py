"""What learned editors make of a step's two noises, against the formulas written out row by row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.direction import Direction
from lib.editing.edit_shifts import EditShifts, Row
from lib.editing.steering import Steering
from lib.editors.learned_editor import LearnedEditor
from lib.models.unet_denoiser import UNetDenoiser
from lib.sampling.step_weights import single_weight, window_weights
from lib.shift import Shift

NODE, T, UNIT, UNIT_STRENGTH = 6, 599, 3.0, 0.5
INJECTIONS = ["asymmetric", "symmetric"]
Shifts = Callable[..., EditShifts]
Learned = Callable[..., LearnedEditor]


def f(h_BCYX: Tensor, t: int) -> Tensor:
    """Depends on h, row by row, and on t."""
    return torch.tanh(h_BCYX.roll(1, dims=1)) * (t / 500) + h_BCYX.mean(dim=(1, 2, 3), keepdim=True)


def g(h_BCYX: Tensor, t: int) -> Tensor:
    return h_BCYX.flip(2) * (t / 1000)


@pytest.fixture(name="x_BLYX")
def noisy() -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(name="x0_LYX")
def clean() -> Tensor:
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))


def steered(
    denoiser: UNetDenoiser,
    shifts: EditShifts,
    rows: Sequence[Row],
    x_BLYX: Tensor,
    *,
    node: int = NODE,
    fresh: int = 0,
    x0_LYX: Tensor | None = None,
) -> tuple[Tensor, Tensor, int]:
    steering = Steering(
        denoiser, shifts, node, rows, fresh=fresh, lead=None, keeps_lead=False, x0_LYX=x0_LYX
    )
    forward_BLYX, back_BLYX = steering(x_BLYX)
    return forward_BLYX, back_BLYX, steering.evaluations


def weight(shifts: EditShifts, node: int = NODE) -> float:
    return window_weights(shifts.grid, shifts.window, shifts.injection)[node]


def decoded(denoiser: UNetDenoiser, x_LYX: Tensor, delta: Callable[[Tensor], Tensor]) -> Tensor:
    """eps with h + delta(h), of one row."""
    point = denoiser.encode(x_LYX[None], T)
    return denoiser.decode(point, point.h_BCYX + delta(point.h_BCYX))[0]


def plain(denoiser: UNetDenoiser, x_LYX: Tensor) -> Tensor:
    return denoiser.predict(x_LYX[None], T)[0]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_a_function_shifts_h_by_strength_weight_and_its_own_value(
    denoiser: UNetDenoiser, shifts: Shifts, learned: Learned, injection: str, x_BLYX: Tensor
) -> None:
    placed, first, second = shifts(injection), learned(f), learned(g)
    rows = [None, Shift(first, 0.7), Shift(second, 1.0, (Shift(first, 2.0),)), Shift(first, -1.2)]
    forward_BLYX, back_BLYX, evaluations = steered(denoiser, placed, rows, x_BLYX)
    w = weight(placed) * UNIT_STRENGTH
    deltas: list[Callable[[Tensor], Tensor]] = [
        torch.zeros_like,
        lambda h: 0.7 * w * f(h, T),
        lambda h: 1.0 * w * g(h, T) + 2.0 * w * f(h, T),
        lambda h: -1.2 * w * f(h, T),
    ]
    for row, delta in enumerate(deltas):
        eps_LYX, edited_LYX = plain(denoiser, x_BLYX[row]), decoded(denoiser, x_BLYX[row], delta)
        close(forward_BLYX[row], edited_LYX)
        close(back_BLYX[row], edited_LYX if injection == "symmetric" else eps_LYX)
        assert row == 0 or (edited_LYX - eps_LYX).abs().max() > 1e-2
    assert evaluations == (4 if injection == "symmetric" else 4 + 3)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_a_function_and_a_direction_add_their_shifts(
    denoiser: UNetDenoiser,
    shifts: Shifts,
    learned: Learned,
    direction: Direction,
    injection: str,
    x_BLYX: Tensor,
) -> None:
    placed = shifts(injection)
    rows = [Shift(direction, 0.4), Shift(direction, 0.4, (Shift(learned(f), 0.7),))]
    forward_BLYX, _, _ = steered(denoiser, placed, rows, x_BLYX[:2])
    w = weight(placed)
    along_CYX = 0.4 * w * UNIT * direction.vector_SCYX[0]
    close(forward_BLYX[0], decoded(denoiser, x_BLYX[0], lambda _h: along_CYX))
    both = decoded(denoiser, x_BLYX[1], lambda h: along_CYX + 0.7 * UNIT_STRENGTH * w * f(h, T))
    close(forward_BLYX[1], both)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_edits_that_leave_the_reconstruction_use_its_h(
    denoiser: UNetDenoiser, shifts: Shifts, learned: Learned, injection: str, x_BLYX: Tensor
) -> None:
    placed = shifts(injection)
    rows = [None, Shift(learned(g), 0.3), Shift(learned(f), 0.7), Shift(learned(f), -0.5)]
    alike_BLYX = x_BLYX[[0, 1, 0, 0]]
    found = steered(denoiser, placed, rows, alike_BLYX, fresh=2)
    alone = steered(denoiser, placed, rows, alike_BLYX)
    close(found[0], alone[0])
    close(found[1], alone[1])
    assert found[2] == (4 if injection == "symmetric" else 1 + 2 + 2)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_a_network_adds_its_difference_to_both_terms(
    denoiser: UNetDenoiser,
    shifts: Shifts,
    learned: Learned,
    known_noise: Any,
    injection: str,
    x_BLYX: Tensor,
    x0_LYX: Tensor,
) -> None:
    source, other = known_noise(), known_noise(slope=-0.3, evaluations=1)
    editor, second = learned(None, source), learned(None, other)
    rows = [None, Shift(editor, 0.6), Shift(second, 2.0, (Shift(editor, 1.0),)), Shift(editor, 2.0)]
    found = steered(denoiser, shifts(injection), rows, x_BLYX, x0_LYX=x0_LYX)
    factors = [(0, 0), (0.3, 0), (0.5, 1.0), (1.0, 0)]
    for row, (of_source, of_other) in enumerate(factors):
        x_LYX, eps_LYX = x_BLYX[row], plain(denoiser, x_BLYX[row])
        expected_LYX = (
            eps_LYX
            + of_source * (0.5 * x_LYX + 0.599 - x0_LYX - eps_LYX)
            + of_other * (-0.3 * x_LYX + 0.599 - x0_LYX - eps_LYX)
        )
        close(found[0][row], expected_LYX)
        close(found[1][row], expected_LYX)
    assert (source.rows, other.rows) == ([3], [1]), "one call for all rows of an editor"
    assert found[2] == 4 + 3 * 3 + 1 * 1


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_a_shift_of_h_and_a_network_are_added(
    denoiser: UNetDenoiser,
    shifts: Shifts,
    learned: Learned,
    known_noise: Any,
    direction: Direction,
    injection: str,
    x_BLYX: Tensor,
    x0_LYX: Tensor,
) -> None:
    placed, network = shifts(injection), learned(None, known_noise())
    rows = [
        None,
        Shift(direction, 0.4, (Shift(network, 1.2),)),
        Shift(network, 1.2, (Shift(learned(f), 0.7),)),
        Shift(network, 1.2),
    ]
    found = steered(denoiser, placed, rows, x_BLYX, x0_LYX=x0_LYX)
    w = weight(placed)
    deltas: list[Callable[[Tensor], Tensor]] = [
        torch.zeros_like,
        lambda _h: 0.4 * w * UNIT * direction.vector_SCYX,
        lambda h: 0.7 * UNIT_STRENGTH * w * f(h, T),
        torch.zeros_like,
    ]
    for row, delta in enumerate(deltas):
        x_LYX, eps_LYX = x_BLYX[row], plain(denoiser, x_BLYX[row])
        more_LYX = 0.6 * (0.5 * x_LYX + 0.599 - x0_LYX - eps_LYX) if row else 0.0
        edited_LYX = decoded(denoiser, x_BLYX[row], delta)
        close(found[0][row], edited_LYX + more_LYX)
        close(found[1][row], (edited_LYX if injection == "symmetric" else eps_LYX) + more_LYX)
    # Symmetric: one pass with the shifts and one without; asymmetric: two decoder halves more.
    assert found[2] == (4 + 4 if injection == "symmetric" else 4 + 2) + 3 * 3


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_an_editor_that_an_edit_names_twice_counts_twice(
    denoiser: UNetDenoiser,
    shifts: Shifts,
    learned: Learned,
    known_noise: Any,
    injection: str,
    x_BLYX: Tensor,
    x0_LYX: Tensor,
) -> None:
    function, network = learned(f), learned(None, known_noise())
    for editor in (function, network):
        twice = [Shift(editor, 0.5, (Shift(editor, 0.2),)), Shift(editor, 1.0)]
        once = [Shift(editor, 0.7), Shift(editor, 1.0)]
        found = steered(denoiser, shifts(injection), twice, x_BLYX[:2], x0_LYX=x0_LYX)
        expected = steered(denoiser, shifts(injection), once, x_BLYX[:2], x0_LYX=x0_LYX)
        close(found[0], expected[0])
        close(found[1], expected[1])
        assert found[2] == expected[2]


@torch.no_grad()
def test_steps_of_a_function_that_share_a_node_add_their_weights(
    denoiser: UNetDenoiser, shifts: Shifts, learned: Learned, x_BLYX: Tensor
) -> None:
    editor = learned(f, timesteps=(630, 600, 590, 200))  # the first three belong to 599
    placed = shifts("asymmetric", reach="found")
    forward_BLYX, _, _ = steered(denoiser, placed, [Shift(editor, 0.2)], x_BLYX[:1])
    factor = 3 * 0.2 * UNIT_STRENGTH * single_weight(placed.grid, NODE, "asymmetric")
    close(forward_BLYX[0], decoded(denoiser, x_BLYX[0], lambda h: factor * f(h, T)))


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("own", [(999, 700), (500, 0)])
@torch.no_grad()
def test_outside_of_its_own_window_an_editor_does_nothing_and_costs_nothing(
    denoiser: UNetDenoiser,
    shifts: Shifts,
    learned: Learned,
    known_noise: Any,
    injection: str,
    own: tuple[int, int],
    x_BLYX: Tensor,
) -> None:
    source = known_noise()
    editors = [learned(f, window=own), learned(None, source, window=own)]
    rows = [Shift(editor, 1.0) for editor in editors]
    forward_BLYX, back_BLYX, evaluations = steered(denoiser, shifts(injection), rows, x_BLYX[:2])
    expected_BLYX = denoiser.predict(x_BLYX[:2], T)
    assert torch.equal(forward_BLYX, expected_BLYX)
    assert torch.equal(back_BLYX, expected_BLYX)
    assert (evaluations, source.rows) == (2, [])


def test_a_network_without_the_image_is_refused(
    denoiser: UNetDenoiser, shifts: Shifts, learned: Learned, known_noise: Any, x_BLYX: Tensor
) -> None:
    rows = [Shift(learned(None, known_noise()), 1.0)]
    with torch.no_grad(), pytest.raises(ValueError, match="need the image"):
        steered(denoiser, shifts("asymmetric"), rows, x_BLYX[:1])
