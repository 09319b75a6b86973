"""The best and the worst edits of a run, by what their numbers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipelines.report.groups import Ints
from pipelines.report.measures import Measure
from pipelines.report.numbers import Floats, RunNumbers, sample_starts

SHOWN = 6
"""Edits in a list."""

_MAX_SCORES = 3
_ENOUGH = 0.5
"""Of the median change in the region: an edit that does next to nothing is no good one."""


@dataclass(frozen=True, slots=True)
class Extreme:
    """One list of edits."""

    measure: Measure
    end: Literal["best", "worst"]
    rows: tuple[int, ...]
    """Of the report's table, the most extreme first."""


def find_extremes(numbers: RunNumbers) -> list[Extreme]:
    """Lists by ROIR, by change outside the region (its large end alone) and by the first scores; no
    more than one edit a sample in each.
    """
    by_name = {measure.name: measure for measure in numbers.measures}
    scores = [m for m in numbers.measures if m.is_score and m.better][:_MAX_SCORES]
    if not numbers.keys or numbers.edits.num_rows <= SHOWN:
        return []
    sample_N = _samples(numbers)
    change_N = numbers.column("in_change")
    moved_N = change_N >= _ENOUGH * np.nanmedian(change_N)
    found = []
    if "roir" in by_name:
        roir_N = numbers.column("roir")
        found.append(_list(by_name["roir"], "best", np.where(moved_N, roir_N, np.nan), sample_N))
        found.append(_list(by_name["roir"], "worst", -roir_N, sample_N))
    if "out_change" in by_name:
        out_N = numbers.column("out_change")
        found.append(_list(by_name["out_change"], "worst", -out_N, sample_N))
    for measure in scores:
        value_N = numbers.column(measure.name)
        value_N = value_N if measure.better == "low" else -value_N
        found.append(_list(measure, "best", np.where(moved_N, value_N, np.nan), sample_N))
        found.append(_list(measure, "worst", -value_N, sample_N))
    return [each for each in found if each.rows]


def _samples(numbers: RunNumbers) -> Ints:
    """The number of every row's sample."""
    begins_N = np.zeros(numbers.edits.num_rows, np.int64)
    begins_N[sample_starts(numbers.edits)[1:]] = 1
    return np.cumsum(begins_N)


def _list(
    measure: Measure, end: Literal["best", "worst"], key_N: Floats, sample_N: Ints
) -> Extreme:
    """The edits with the smallest keys, NaN aside."""
    order_N = np.argsort(key_N, kind="stable")
    rows: list[int] = []
    seen: set[int] = set()
    for row in order_N:
        if len(rows) == SHOWN or np.isnan(key_N[row]):
            break
        if int(sample_N[row]) not in seen:
            seen.add(int(sample_N[row]))
            rows.append(int(row))
    return Extreme(measure, end, tuple(rows))


def shown_rows(extremes: Sequence[Extreme]) -> list[int]:
    """The rows of all lists, each once."""
    return sorted({row for each in extremes for row in each.rows})
