"""Windows, signs and strengths of directions, against pictures that answer h by a known matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.direction import Direction, content_id, stored
from lib.discovery.window_choice import RAISES_LABEL
from lib.sampling.sampler import Latent, plain_latent
from lib.shift import Shift
from pipelines.window_search import Place, Placed, placed

EARLY, LATE = (500, 300), (250, 0)
CHANGE = 0.15


class FakeEditor:
    """Entry k of h moves colour c of the whole picture by answer[c, k], times how lively it is."""

    def __init__(self, window: tuple[int, int], answer_CK: list[list[float]]) -> None:
        self.edited_timesteps = window
        self.answer_CK = torch.tensor(answer_CK)
        self.strengths: list[list[float]] = []

    def decode(self, latent: Latent, shifts: Sequence[Shift]) -> Tensor:
        self.strengths.append([shift.strength for shift in shifts])
        rows = [torch.zeros(3)]
        for shift in shifts:
            h_K = shift.strength * shift.direction.vector_SCYX[0, :, 0, 0]
            rows.append(latent.x_LYX.mean() * (self.answer_CK @ h_K))
        images_BCHW = torch.stack(rows)[:, :, None, None].expand(-1, -1, 8, 8)
        return ((images_BCHW + 1) * 127.5).round().clamp(0, 255).byte()


def colours(image_BCHW: Tensor) -> Tensor:
    """What is read: three factors, the mean of each colour."""
    return image_BCHW.mean((2, 3))


def axis(entry: int) -> Direction:
    vector_SCYX = stored(torch.eye(3)[entry].view(1, 3, 1, 1), "float32")
    return Direction(
        vector_SCYX=vector_SCYX, id=content_id(vector_SCYX, "h", "after", "m", (300,)), space="h",
        h_layer="after", model="m", timesteps=(300,), method="supervised", parameters={},
        region="image", mask_sha256="", shard=None, index=None, key=None, rank=0,
        singular_value=1.0, gap=None, residual=None, angle=None, converged=True, jvp_count=0,
        vjp_count=0, sign_rule="high_minus_low", h_norm=1.0,
    )  # fmt: skip


def place(window: tuple[int, int], answer_CK: list[list[float]], images: int = 4) -> Place:
    editor: Any = FakeEditor(window, answer_CK)
    pictures = [torch.full((3, 8, 8), 0.8 + 0.1 * n) for n in range(images)]
    return Place(editor, [plain_latent(picture) for picture in pictures])


def search(*places: Place) -> list[Placed]:
    directions = [axis(k) for k in range(3)]
    return placed(directions, [0, 1, 2], places, colours, change=CHANGE, pilots=1)


EARLY_CK = [[0.9, 0.0, 0.3], [0.1, -0.4, 0.3], [0.0, 0.0, 0.3]]
LATE_CK = [[0.2, 0.3, 0.0], [0.2, -0.3, 0.1], [0.0, 0.3, -0.6]]


def test_each_direction_gets_the_window_in_which_it_moves_its_own_factor_most() -> None:
    found = search(place(EARLY, EARLY_CK), place(LATE, LATE_CK))
    assert [one.direction.window for one in found] == [EARLY, EARLY, LATE]
    assert [one.choice.window for one in found] == [EARLY, EARLY, LATE]


def test_plus_raises_the_label_and_only_what_lowered_it_was_turned() -> None:
    found = search(place(EARLY, EARLY_CK), place(LATE, LATE_CK))
    assert [one.choice.sign for one in found] == [1.0, -1.0, -1.0]
    for k, one in enumerate(found):
        expected_SCYX = one.choice.sign * axis(k).vector_SCYX
        torch.testing.assert_close(one.direction.vector_SCYX, expected_SCYX, rtol=0, atol=0)
        assert one.direction.sign_rule == RAISES_LABEL
        assert one.direction.method == "supervised"
        assert one.direction.id == content_id(expected_SCYX, "h", "after", "m", (300,))
        assert float(one.change_F[k]) > 0
    assert found[0].direction.parents == ()
    assert found[1].direction.parents == (axis(1).id,)


def test_windows_are_compared_and_strengths_given_at_the_wanted_change_of_the_image() -> None:
    weak, strong = place(EARLY, [[0.2] * 3] * 3), place(LATE, [[2.0] * 3] * 3)
    found = search(weak, strong)
    for where, answer in ((weak, 0.2), (strong, 2.0)):
        editor: Any = where.editor
        pilot, *measured = editor.strengths
        assert pilot == [pytest.approx(0.3)] * 3
        for strengths in measured:  # of the pilot, which is 0.8 as lively
            assert [abs(s) for s in strengths] == [
                pytest.approx(CHANGE / answer / 0.8, rel=0.07)
            ] * 6
    lively = (0.9 + 1.0 + 1.1) / 3
    for one in found:
        answer = 0.2 if one.choice.window == EARLY else 2.0
        assert one.strength == pytest.approx(CHANGE / answer / lively, rel=0.05)


def test_the_images_that_give_strengths_are_not_those_that_decide() -> None:
    with pytest.raises(ValueError, match="more images"):
        search(place(EARLY, EARLY_CK, images=1))


def test_not_a_number_is_an_error_not_a_choice() -> None:
    class Broken(FakeEditor):
        def decode(self, latent: Latent, shifts: Sequence[Shift]) -> Any:
            return None

    editor: Any = Broken(EARLY, EARLY_CK)
    with pytest.raises(ArithmeticError, match="NaN"):
        search(Place(editor, [torch.ones(3, 8, 8)] * 3))
