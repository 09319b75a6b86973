"""The strength search against pictures whose change is a known function of the strength."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from pipelines.strength_search import matched

SIDE = 8
LEFT_HW = torch.zeros(SIDE, SIDE)
LEFT_HW[:, :4] = 1


class FakeEditor:
    """Changes the left half by response(strength) and the right half by a quarter of it; uint8 as
    the real one.
    """

    def __init__(self, *responses: Callable[[float], float]) -> None:
        self.responses = responses
        self.decodes: list[int] = []

    def decode(self, start_LYX: Tensor, shifts: Sequence[Any]) -> Tensor:
        self.decodes.append(len(shifts))
        rows = [torch.zeros(3, SIDE, SIDE)]
        for shift in shifts:
            moved = self.responses[shift.direction.rank](shift.strength)
            rows.append((LEFT_HW * moved + (1 - LEFT_HW) * moved / 4).expand(3, -1, -1))
        return ((torch.stack(rows) + 1) * 127.5).round().clamp(0, 255).byte()


def search(editor: Any, count: int, **options: Any) -> list[Any]:
    directions: Any = [SimpleNamespace(rank=i) for i in range(count)]
    return matched(editor, torch.zeros(3, SIDE, SIDE), directions, [LEFT_HW] * count, **options)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_every_direction_of_a_batch_gets_the_strength_of_its_own_response(sign: float) -> None:
    editor = FakeEditor(lambda s: 2 * s, lambda s: 0.3 * s * abs(s), lambda s: 40 * s)
    found = search(editor, 3, target=0.15, sign=sign)
    assert [edit.reached for edit in found] == [True] * 3
    for edit, strength in zip(found, (0.075, 0.5**0.5, 0.00375), strict=True):
        assert edit.strength * sign == pytest.approx(strength, rel=0.08)
        assert edit.in_change == pytest.approx(0.15, rel=0.06)
        assert edit.roir == pytest.approx(0.25, abs=0.055)  # a byte is 0.0078 of change


def test_a_direction_that_is_done_is_not_decoded_again() -> None:
    editor = FakeEditor(lambda s: 1.5 * s, lambda s: 40 * s)
    search(editor, 2, target=0.15)
    assert editor.decodes[0] == 2
    assert set(editor.decodes[1:]) == {1}


def test_a_good_first_guess_costs_one_decode() -> None:
    editor = FakeEditor(lambda s: 2 * s, lambda s: 40 * s)
    search(editor, 2, target=0.15, first=[0.075, 0.00375])
    assert editor.decodes == [2]


def test_a_change_out_of_reach_is_said_and_the_nearest_try_given() -> None:
    (edit,) = search(FakeEditor(lambda s: min(s, 0.05)), 1, target=0.15, rounds=4)
    assert not edit.reached
    assert edit.in_change == pytest.approx(0.05, abs=0.01)


def test_a_network_that_is_not_finite_is_an_error() -> None:
    editor = SimpleNamespace(decode=lambda start, shifts: None)
    with pytest.raises(ArithmeticError, match="NaN"):
        search(editor, 1, target=0.15)
