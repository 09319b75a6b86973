"""Which edits a plan means, against counts made by hand."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from lib.directions.edit_query import Candidate, Entry, Selection, Term, enumerated, sampled

EYES, BROWS, MOUTH, SMILE, AGE = FACE = (
    Candidate("eyes", 0, "jacobian", id="aa00", label=None, score=0.9, roir=0.1),
    Candidate("eyes", 1, "jacobian", id="ab11", label="brows", score=0.5, roir=0.4),
    Candidate("mouth", 0, "localised", id="cc22"),
    Candidate("image", 0, "supervised", id="dd33", label="smile", score=0.7, roir=float("nan")),
    Candidate("image", 1, "supervised", id="ee44", label="age"),
)


def one(*strengths: float, **selection: object) -> Entry:
    return Entry((Term(Selection(**selection), strengths),))  # type: ignore[arg-type]


def term(*strengths: float, **selection: object) -> Term:
    return Term(Selection(**selection), strengths)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), FACE),
        (Selection(regions=("eyes",)), (EYES, BROWS)),
        (Selection(regions=("eyes",), max_rank=1), (EYES,)),
        (Selection(ranks=(1,)), (BROWS, AGE)),
        (Selection(ids=("a",)), (EYES, BROWS)),
        (Selection(ids=("ab", "ee44")), (BROWS, AGE)),
        (Selection(labels=("smile", "brows")), (BROWS, SMILE)),
        (Selection(methods=("localised",)), (MOUTH,)),
        (Selection(min_score=0.7), (EYES, SMILE)),
        (Selection(max_roir=0.4), (EYES, BROWS)),
        (Selection(regions=("mouth",), ranks=(1,)), ()),
    ],
)
def test_a_selection_asks_all_its_questions_at_once(
    selection: Selection, expected: tuple[Candidate, ...]
) -> None:
    assert tuple(filter(selection.matches, FACE)) == expected


def test_a_direction_whose_id_is_not_known_yet_has_none_that_is_asked_for() -> None:
    assert not Selection(ids=("a",)).matches(replace(EYES, id=None))


def test_edits_come_in_the_order_of_entries_directions_and_strengths() -> None:
    entries = [one(0.2, -0.1, regions=("eyes",)), one(0.5, labels=("age",))]
    assert enumerated(entries, FACE) == [
        ((0, 0.2),), ((0, -0.1),), ((1, 0.2),), ((1, -0.1),), ((4, 0.5),),
    ]  # fmt: skip


def test_what_two_entries_mean_alike_is_made_once() -> None:
    pair = Entry((term(0.1, regions=("eyes",)), term(0.2, regions=("mouth",))))
    turned = Entry((term(0.2, regions=("mouth",)), term(0.1, regions=("eyes",))))
    found = enumerated([one(0.1), one(0.1, 0.3, regions=("mouth",)), pair, turned], FACE)
    assert len(found) == 5 + 1 + 2
    assert found[-2:] == [((0, 0.1), (2, 0.2)), ((1, 0.1), (2, 0.2))]


def test_combinations_are_all_products_of_different_regions() -> None:
    entry = Entry((term(0.1, 0.2), term(-0.1, regions=("eyes", "mouth"))))
    found = enumerated([entry], FACE)
    # Each of 3 second directions with each of the 5 first but those of its own region, twice.
    assert len(found) == 2 * (3 + 3 + 4)
    assert all({FACE[i].region for i, _ in c} not in ({"eyes"}, {"mouth"}) for c in found)


def test_directions_of_the_whole_image_combine_but_not_one_with_itself() -> None:
    entry = Entry((term(0.1, regions=("image",)), term(0.2, regions=("image",))))
    assert enumerated([entry], FACE) == [((3, 0.1), (4, 0.2)), ((4, 0.1), (3, 0.2))]


def test_one_region_is_combined_with_itself_where_asked() -> None:
    sides = (term(0.1, regions=("eyes",)), term(0.1, regions=("eyes",)))
    assert enumerated([Entry(sides)], FACE) == []
    assert enumerated([Entry(sides, same_region=True)], FACE) == [
        ((0, 0.1), (0, 0.1)), ((0, 0.1), (1, 0.1)), ((1, 0.1), (1, 0.1)),
    ]  # fmt: skip


def test_a_sample_is_distinct_in_order_and_the_seed_alone_decides() -> None:
    choices = enumerated([one(*(0.01 * k for k in range(1, 21)))], FACE)
    found = sampled(choices, 8, seed=5)
    assert len(found) == len(set(found)) == 8
    assert [choices.index(c) for c in found] == sorted(choices.index(c) for c in found)
    assert found == sampled(choices, 8, seed=5) != sampled(choices, 8, seed=6)
    assert sampled(choices, None, seed=5) == sampled(choices, 1000, seed=5) == choices


def test_samples_of_many_seeds_are_uniform() -> None:
    choices = [((i, 0.1),) for i in range(10)]
    seen = Counter(c for seed in range(4000) for c in sampled(choices, 3, seed))
    # 1,200 expected each; the standard deviation of a binomial count is sqrt(4000 .3 .7) = 29.
    assert all(abs(seen[c] - 1200) < 5 * 29 for c in choices)


def test_a_plan_is_counted_without_torch() -> None:
    script = "import sys; from lib.directions import edit_query, library_facts, direction_reach;"
    script += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
