"""The window and sign of a direction, against changes made up so that the answer is known."""

import numpy as np
import pytest
import torch

from lib.discovery.window_choice import NOISE, Trial, chosen_window

EARLY, LATE = (533, 266), (333, 0)


def trial(window: tuple[int, int], sign: float, rows: list[list[float]]) -> Trial:
    return Trial(window, sign, torch.tensor(rows))


def both(window: tuple[int, int], own: float, others: float) -> list[Trial]:
    """Factor 0 moves by `own` when the direction is added, and back when it is subtracted."""
    return [trial(window, s, [[s * own, others, -others]] * 3) for s in (1.0, -1.0)]


def test_the_window_that_moves_the_factor_most_relative_to_the_others_wins() -> None:
    strong_but_mixed, clean = both(EARLY, 0.8, 0.4), both(LATE, 0.5, 0.1)
    assert chosen_window(strong_but_mixed + clean, 0).window == LATE
    assert chosen_window(clean + strong_but_mixed, 0).window == LATE


def test_the_sign_is_the_one_in_which_the_reading_moves_not_the_one_assumed() -> None:
    choice = chosen_window(both(EARLY, -0.5, 0.1), 0)
    assert (choice.sign, choice.agreement) == (-1.0, 1.0)
    assert choice.change == pytest.approx(0.5)


def test_each_window_has_its_own_sign() -> None:
    wrong_way_early = both(EARLY, -0.9, 0.3) + both(LATE, 0.5, 0.05)
    choice = chosen_window(wrong_way_early, 0)
    assert (choice.window, choice.sign) == (LATE, 1.0)


def test_a_window_whose_images_disagree_loses_to_one_where_all_move_the_same_way() -> None:
    jumpy = [trial(EARLY, 1.0, [[1.4, 0.1], [1.4, 0.1], [-0.4, 0.1], [-0.4, 0.1]])]
    steady = [trial(LATE, 1.0, [[0.4, 0.1]] * 4)]
    assert chosen_window(jumpy + steady, 0).window == LATE


def test_below_the_noise_of_the_reading_a_tiny_clean_change_does_not_win() -> None:
    assert chosen_window(both(EARLY, 0.004, 0.0001) + both(LATE, 0.4, 0.1), 0).window == LATE


def test_changes_one_way_only_say_nothing_about_the_sign() -> None:
    up_whatever_is_done = [trial(EARLY, s, [[0.3, 0.0]] * 2) for s in (1.0, -1.0)]
    choice = chosen_window(up_whatever_is_done, 0)
    assert (choice.sign, choice.merit, choice.change) == (1.0, 0.0, 0.0)


def test_the_numbers_are_those_of_plain_arithmetic_over_images_and_signs() -> None:
    generator = np.random.default_rng(0)
    changes = {s: generator.normal(0.2 * s, 0.3, (5, 4)).astype(np.float32) for s in (1.0, -1.0)}
    choice = chosen_window([Trial(EARLY, s, torch.from_numpy(c)) for s, c in changes.items()], 2)
    own = [s * float(row[2]) for s, c in changes.items() for row in c]
    others = [abs(float(row[f])) for c in changes.values() for row in c for f in (0, 1, 3)]
    right = sum(o * choice.sign > 0 for o in own) / 10
    assert choice.change == pytest.approx(abs(sum(own)) / 10)
    assert choice.others == pytest.approx(sum(others) / 30)
    assert choice.agreement == right
    expected = (2 * right - 1) * choice.change / (choice.others + NOISE)
    assert choice.merit == pytest.approx(expected)


def test_of_equal_windows_the_first_is_taken() -> None:
    assert chosen_window(both(LATE, 0.5, 0.1) + both(EARLY, 0.5, 0.1), 0).window == LATE


@pytest.mark.parametrize(
    ("trials", "factor", "said"),
    [
        ([], 0, "at least one trial"),
        ([trial(EARLY, 1.0, [[0.1, 0.2]])], 2, "factor 2"),
        ([trial(EARLY, 1.0, [[0.1]])], 0, "two factors"),
        ([trial(EARLY, 0.5, [[0.1, 0.2]])], 0, "1.0 or -1.0"),
        ([trial(EARLY, 1.0, [[float("nan"), 0.2]])], 0, "NaN"),
        ([Trial(EARLY, 1.0, torch.zeros(0, 3))], 0, "at least one image"),
    ],
)
def test_what_cannot_be_judged_is_refused(trials: list[Trial], factor: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chosen_window(trials, factor)
