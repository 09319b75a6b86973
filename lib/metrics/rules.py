"""Rules on what is measured of an edit, such as `roir < 0.5`: what an edit must fulfil.

A rule is read by this module alone: a column, one of < <= > >=, a number. Nothing is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import ge, gt, le, lt

import numpy as np

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RULE = re.compile(rf"\s*([^<>=]*[^<>=\s])\s*(<=|>=|<|>)\s*({_NUMBER})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    """A bound on one column of an edit's row."""

    metric: str
    comparison: str
    bound: float
    text: str
    """As it stands in the column `filtered` and in all counts."""

    def holds(self, metrics: Mapping[str, float | None]) -> bool:
        """Whether an edit with these numbers fulfils it. A number is compared as the row stores it,
        rounded to float32; NaN and null fulfil no rule.
        """
        value = metrics[self.metric]
        return value is not None and _COMPARE[self.comparison](float(np.float32(value)), self.bound)


def parse_rule(text: str) -> Rule:
    """The rule that `text` says; raises ValueError, with what was expected, if it says none."""
    found = _RULE.fullmatch(text)
    if found is None:
        raise ValueError(
            f"expected a rule such as `roir < 0.5`: a metric, one of < <= > >=, and a number; got"
            f" {text!r}"
        )
    metric, comparison, number = found.groups()
    bound = float(number)
    if not np.isfinite(bound):
        raise ValueError(f"expected a finite number in the rule {text!r}")
    return Rule(metric, comparison, bound, f"{metric} {comparison} {number}")


def check_known(rules: Sequence[Rule], columns: Collection[str]) -> None:
    """Raises ValueError for the first rule on a metric that is not among `columns`."""
    for rule in rules:
        if rule.metric not in columns:
            nearest = get_close_matches(rule.metric, columns, n=1, cutoff=0.0)
            raise ValueError(
                f"the rule `{rule.text}` is on no metric of this run; the nearest is {nearest[0]},"
                f" all are {', '.join(columns)}"
            )


def first_broken(rules: Sequence[Rule], metrics: Mapping[str, float | None]) -> str | None:
    """The text of the first rule that an edit with these numbers breaks, None if it breaks none."""
    return next((rule.text for rule in rules if not rule.holds(metrics)), None)


def counted(by_rule: Mapping[str, int]) -> str:
    """How often each rule was the first to be broken, as a text: 3 `psnr > 30`, 1 `roir < 0.5`."""
    return ", ".join(f"{count} `{rule}`" for rule, count in sorted(by_rule.items()))
