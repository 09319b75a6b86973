"""The statistics of the locality table against scipy and numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.locality_edits import Row, append, kept
from benchmarks.locality_statistics import bootstrap_median, line, paired, summed_roir
from lib.demo.faces import FACTORS

ROW = Row(0, 0, "own", 0.15, "jacobian", "eyes", 0.2, 0.1, 0.15, True, 30, 30, (0.0,) * 16)


def edits(method: str, roir: dict[int, tuple[float, float, float]]) -> list[Row]:
    return [
        replace(ROW, face=face, method=method, region=region, roir=value)
        for face, values in roir.items()
        for region, value in zip(("eyes", "brows", "mouth"), values, strict=True)
    ]


PLAIN = edits("jacobian", {0: (0.1, 0.2, 0.3), 1: (0.2, 0.2, 0.6), 2: (0.1, 0.1, 0.2)})
LOCAL = edits("localised", {0: (0.1, 0.1, 0.1), 1: (0.1, 0.1, 0.1), 2: (0.2, 0.2, 0.2)})


def test_the_ratio_pairs_the_sums_over_regions_of_the_same_face() -> None:
    # 0.3 / 0.6, 0.3 / 1.0, 0.6 / 0.4
    found = paired(summed_roir(LOCAL, "localised"), summed_roir(PLAIN, "jacobian"))
    assert found.median == pytest.approx(0.5)
    assert (found.better, found.count) == (2, 3)
    assert found.worst == pytest.approx(1.5)
    assert found.low == pytest.approx(0.3)
    assert found.high == pytest.approx(1.5)


def test_the_ratio_does_not_depend_on_the_order_of_rows() -> None:
    rows = PLAIN + LOCAL
    assert line(rows, "localised") == line(rows[::-1], "localised")


def test_the_interval_is_that_of_the_exact_bootstrap_distribution() -> None:
    # Of 31 draws with replacement the median is at most the k-th smallest value if 16 of them are:
    # a binomial number of trials with success k / 31.
    values = np.sort(np.random.default_rng(3).lognormal(-1, 0.4, 31))
    below = stats.binom.sf(15, 31, np.arange(1, 32) / 31)
    low, high = bootstrap_median(values[::-1].tolist())
    assert low == values[np.searchsorted(below, 0.025)]
    assert high == values[np.searchsorted(below, 0.975)]


def test_the_interval_is_the_same_on_every_call() -> None:
    values = [0.3, 0.5, 0.2, 0.9, 0.4]
    assert bootstrap_median(values) == bootstrap_median(values)


def test_faces_that_are_not_on_both_sides_are_refused() -> None:
    with pytest.raises(ValueError, match="same faces"):
        paired({0: 1.0, 1: 1.0}, {0: 1.0})
    with pytest.raises(ValueError, match="not on all regions"):
        summed_roir(PLAIN[:2], "jacobian")
    with pytest.raises(ValueError, match="twice"):
        summed_roir([*PLAIN, PLAIN[0]], "jacobian")


def test_own_factors_are_those_of_the_region_and_others_the_mean_of_the_rest() -> None:
    moved = dict.fromkeys(FACTORS, 0.0) | {"smile": -0.5, "mouth_open": 0.2, "hair_col": -1.3}
    row = replace(ROW, region="mouth", changes=tuple(moved.values()))
    assert row.own_change == pytest.approx(0.5)
    assert row.other_change == pytest.approx(1.3 / 13)
    brows = replace(row, region="brows")
    assert brows.own_change == 0.0
    assert brows.other_change == pytest.approx(2.0 / 15)


def test_raw_rows_come_back_from_their_file_and_only_under_the_same_conditions(
    tmp_path: Path,
) -> None:
    path = tmp_path / "rows.csv"
    append(path, "3 faces, 16 steps", PLAIN[3:])
    append(path, "3 faces, 16 steps", PLAIN[:3])
    assert kept(path, "3 faces, 16 steps") == [*PLAIN[:3], *PLAIN[3:]]
    with pytest.raises(ValueError, match="other conditions"):
        kept(path, "4 faces, 16 steps")
