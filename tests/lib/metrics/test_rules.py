"""Rules on metrics: what they say, and that nothing else is read into them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lib.metrics.columns import FIXED
from lib.metrics.rules import check_known, first_broken, parse_rule


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("roir < 0.5", ("roir", "<", 0.5, "roir < 0.5")),
        ("  in_l2>=2e-2 ", ("in_l2", ">=", 0.02, "in_l2 >= 2e-2")),
        ("psnr > -1", ("psnr", ">", -1.0, "psnr > -1")),
        ("change_Mouth Open <= .5", ("change_Mouth Open", "<=", 0.5, "change_Mouth Open <= .5")),
    ],
)
def test_a_rule_is_a_metric_a_comparison_and_a_number(
    text: str, said: tuple[str, str, float, str]
) -> None:
    rule = parse_rule(text)
    assert (rule.metric, rule.comparison, rule.bound, rule.text) == said
    assert parse_rule(rule.text) == rule


@pytest.mark.parametrize(
    "text",
    [
        "", "roir", "roir <", "< 0.5", "roir = 0.5", "roir == 0.5", "roir != 0.5", "roir << 0.5",
        "roir < nan", "roir < inf", "roir < 1e999", "0.1 < roir < 0.5", "roir < psnr",
        "roir < 0.5 and psnr > 3", "roir < __import__('os')", "roir < 0.5; 1", "roir < 1_000",
        "roir < ٣", "roir =< 3",
    ],
)  # fmt: skip
def test_anything_else_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        parse_rule(text)


def test_a_rule_on_no_metric_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"`roirr < 0.5` is on no metric.* the nearest is roir, all"
    ):
        check_known([parse_rule("psnr > 3"), parse_rule("roirr < 0.5")], FIXED)
    check_known([parse_rule(f"{name} < 1") for name in FIXED], FIXED)


@pytest.mark.parametrize(
    ("text", "holds"),
    [("x < 2", False), ("x <= 2", True), ("x > 2", False), ("x >= 2", True), ("x < 2.1", True)],
)
def test_the_bound_itself_is_told_apart(text: str, holds: bool) -> None:
    assert parse_rule(text).holds({"x": 2.0}) == holds


@pytest.mark.parametrize("value", [math.nan, None])
@pytest.mark.parametrize("comparison", ["<", "<=", ">", ">="])
def test_nan_and_null_fulfil_no_rule(value: float | None, comparison: str) -> None:
    assert not parse_rule(f"x {comparison} 0").holds({"x": value})


def test_a_value_is_compared_as_a_reader_of_the_row_sees_it() -> None:
    """0.7 as float32 is 0.69999998807907104492: below 0.7, as SQL says of the stored column."""
    assert float(np.float32(0.7)) < 0.7
    assert parse_rule("x < 0.7").holds({"x": 0.7})
    assert not parse_rule("x >= 0.7").holds({"x": 0.7})


def test_the_first_rule_that_is_broken_is_named() -> None:
    rules = [parse_rule(text) for text in ("x > 0", "y > 0", "x > 5")]
    assert first_broken(rules, {"x": 9.0, "y": 1.0}) is None
    assert first_broken(rules, {"x": 3.0, "y": 0.0}) == "y > 0"
    assert first_broken(rules, {"x": 3.0, "y": 1.0}) == "x > 5"
    assert first_broken((), {}) is None
