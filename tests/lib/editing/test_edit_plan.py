"""From what a plan selects to the shifts of one image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lib.direction import Direction, Scores
from lib.directions.edit_query import Candidate, Entry, Selection, Term
from lib.editing.edit_plan import candidate, every_strength, planned
from lib.files.images import Geometry
from lib.records import Discovered, Inverted, Sample, Segmented
from lib.sampling.sampler import plain_latent


def direction(region: str, rank: int, **more: object) -> Direction:
    found = Direction(
        vector_SCYX=torch.ones(1, 1, 1, 1), id=f"{region}-{rank}", space="h", h_layer="after",
        model="m", timesteps=(332,), method="test", parameters={}, region=region, mask_sha256="",
        shard="s", index=0, key="k", rank=rank, singular_value=1.0, gap=0.0, residual=0.0,
        angle=0.0, converged=True, jvp_count=0, vjp_count=0, sign_rule="", h_norm=1.0,
    )  # fmt: skip
    return replace(found, **more)  # type: ignore[arg-type]


def image(seed: int, *directions: Direction) -> Discovered:
    geometry = Geometry(4, 4, 0, 0, 4, 4, 4, "PNG", "RGB", 1)
    sample = Sample("s", 0, "k", torch.zeros(3, 4, 4), geometry, {}, seed)
    inverted = Inverted(sample, plain_latent(torch.zeros(3, 4, 4)), {})
    return Discovered(Segmented(inverted, ()), directions, own=True)


EYES, OTHER, MOUTH = direction("eyes", 0), direction("eyes", 1), direction("mouth", 0)
ALL = Entry((Term(Selection(), (-0.1, 0.1)),))


def test_without_a_plan_of_its_own_a_run_makes_every_direction_at_every_strength() -> None:
    found = image(1, EYES, OTHER, MOUTH)
    assert planned([ALL], None)(found) == every_strength((-0.1, 0.1))(found)


def test_a_combination_adds_its_further_directions_to_the_first() -> None:
    pair = Entry((Term(Selection(regions=("mouth",)), (0.3,)), Term(Selection(), (-0.1,))))
    first, second = planned([pair], None)(image(1, EYES, OTHER, MOUTH))
    assert [(t.direction.id, t.strength) for t in first.terms] == [
        ("mouth-0", 0.3),
        ("eyes-0", -0.1),
    ]
    assert [(t.direction.id, t.strength) for t in second.terms] == [
        ("mouth-0", 0.3),
        ("eyes-1", -0.1),
    ]
    assert all(term.added == () for shift in (first, second) for term in shift.added)


def test_images_of_other_seeds_have_other_edits_of_one_number() -> None:
    plan = planned([ALL], 2)
    chosen = [
        tuple((s.direction.id, s.strength) for s in plan(image(seed, EYES, OTHER, MOUTH)))
        for seed in range(30)
    ]
    assert {len(c) for c in chosen} == {2}
    assert len(set(chosen)) > 10, "of 15 pairs"
    assert len(plan(image(7, EYES))) == 2, "as many as there are, when there are no more"
    assert plan(image(7)) == []


@pytest.mark.parametrize("scored", [False, True])
def test_what_a_plan_asks_of_a_direction_is_what_the_direction_says(scored: bool) -> None:
    scores = Scores(8, 0.1, 0.05, 0.25, 0.5, 0.9, 0.9, 0.6) if scored else None
    found = candidate(replace(MOUTH, label="smile", scores=scores))
    numbers = (0.6, 0.25) if scored else (None, None)
    assert found == Candidate("mouth", 0, "test", "mouth-0", "smile", *numbers)
