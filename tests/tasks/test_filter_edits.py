"""Filters on crafted scores: what is marked and dropped, and that every sample is somewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lib.records import Edit, Edited, Evaluated, Failure, Renoised, Sample, Score
from lib.regions import make_region
from tasks.filter_edits import EditFilter


def evaluated(sample: Sample, broken: list[str | None]) -> Evaluated:
    region = make_region("all", torch.ones(4, 4))
    pixels_CHW = torch.zeros(3, 4, 4, dtype=torch.uint8)
    edits = tuple(Edit(region, Renoised(1, 0.5, n), pixels_CHW) for n in range(len(broken)))
    scores = tuple(
        Score(n, edit, {"roir": float(n)}, rule)
        for n, (edit, rule) in enumerate(zip(edits, broken, strict=True))
    )
    return Evaluated(Edited(sample, pixels_CHW, 3.0, edits), scores, 3.0)


def test_marking_lets_all_pass_and_drops_none(sample: Callable[..., Sample]) -> None:
    item = evaluated(sample(0), ["a < 1", None, "a < 1"])
    failures: list[Failure] = []
    stage = EditFilter(drops=False)
    (found,) = stage([item], failures.append)
    assert found is item
    assert (stage.dropped, failures) == ({}, [])


def test_dropping_keeps_the_positions_of_the_others(sample: Callable[..., Sample]) -> None:
    item = evaluated(sample(0), [None, "b > 2", None, "a < 1", "b > 2"])
    failures: list[Failure] = []
    stage = EditFilter(drops=True)
    (found,) = stage([item], failures.append)
    assert [score.position for score in found.scores] == [0, 2]
    assert [score.edit for score in found.scores] == [item.edited.edits[0], item.edited.edits[2]]
    assert found.edited is item.edited
    assert found.network_evaluations == 3.0
    assert stage.dropped == {"a < 1": 1, "b > 2": 2}
    assert failures == []


def test_a_sample_without_any_edit_left_is_an_error_that_names_rules_and_counts(
    sample: Callable[..., Sample],
) -> None:
    items = [
        evaluated(sample(0), [None]),
        evaluated(sample(1), ["b > 2", "a < 1", "b > 2"]),
        evaluated(sample(2), ["a < 1", None]),
    ]
    failures: list[Failure] = []
    stage = EditFilter(drops=True)
    found = list(stage(items, failures.append))
    assert [one.sample.index for one in found] == [0, 2]
    (failure,) = failures
    assert (failure.index, failure.key) == (1, "k1")
    assert (failure.stage, failure.kind) == ("evaluate", "filtered")
    assert failure.message == (
        "evaluate.filters drops all 3 edits; broken are 1 `a < 1`, 2 `b > 2`"
    )
    assert stage.dropped == {"a < 1": 2, "b > 2": 2}, "of all samples, the lost one's too"
