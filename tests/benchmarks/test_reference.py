"""Edits towards reference faces, on fewer pairs and in fewer rounds than the benchmark's."""

from __future__ import annotations

from statistics import fmean

import pytest

from benchmarks.reference import measure
from benchmarks.reference_table import OWN, Pair, table
from lib.reference.matching import Approach


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """One of every region."""
    approach = Approach(basis=12, rounds=2, outside=1.0)
    return [measure(index, 3, 4242, approach) for index in range(3)]


def test_edits_go_half_of_the_way_to_the_reference_and_leave_the_other_factors(
    pairs: list[Pair],
) -> None:
    assert [pair.region for pair in pairs] == list(OWN)
    assert fmean(pair.towards for pair in pairs) > 0.5
    assert fmean(p.others for p in pairs) < 0.15 * fmean(p.difference for p in pairs)
    assert all(0.3 < pair.explained < 1 and pair.roir < 0.5 for pair in pairs)


def test_the_table_has_a_row_a_region_and_one_of_all(
    pairs: list[Pair], capsys: pytest.CaptureFixture[str]
) -> None:
    table("some pairs", pairs)
    lines = capsys.readouterr().out.splitlines()[3:]
    assert [line.split()[:2] for line in lines] == [[name, "1"] for name in OWN] + [["all", "3"]]
    share = fmean(p.others for p in pairs) / fmean(p.difference for p in pairs)
    assert f"{fmean(p.towards for p in pairs):.2f} [" in lines[-1]
    assert f"{share:.3f} [" in lines[-1]
