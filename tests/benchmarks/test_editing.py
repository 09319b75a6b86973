"""What the editing benchmark prints, on a coarse grid and one face."""

from __future__ import annotations

from itertools import pairwise
from statistics import median

import pytest

from benchmarks.editing_costs import FLOWS, Cost, Variant, measure
from benchmarks.editing_effects import measure as effects_of
from benchmarks.editing_statistics import Composition, Effect, kept

STEPS, EDITS = 8, 3
BASE = 20
TOP = 4
"""Of the eight timesteps 0, 143, ... 999, those up to 428 are not above T/2."""


@pytest.fixture(scope="module")
def alone() -> dict[str, Cost]:
    variant = Variant("at t=T/2 alone", "found", 400)
    return {flow: measure(flow, variant, STEPS, EDITS) for flow in FLOWS}


def test_flows_cost_what_they_say(alone: dict[str, Cost]) -> None:
    """Up and down once an edit; up and down to T/2 once; up to T/2 and one batch down. The shifted
    prediction is one evaluation more, but ours shares the unshifted one.
    """
    counted = {flow: cost.evaluations for flow, cost in alone.items()}
    assert counted == {
        "published": EDITS * (2 * STEPS + 1),
        "shared": STEPS + (STEPS - TOP) + EDITS * (TOP + 1),
        "ours": TOP + TOP + EDITS * TOP,
    }
    assert counted["ours"] <= 0.4 * counted["published"]


def test_flows_give_the_same_images(alone: dict[str, Cost]) -> None:
    base_ELYX = alone["shared"].x_ELYX
    assert float((alone["published"].x_ELYX - base_ELYX).abs().max()) <= 1e-5
    assert float((alone["ours"].same_start_ELYX - base_ELYX).abs().max()) <= 1e-5
    for one_LYX, other_LYX in pairwise(base_ELYX):
        assert float((one_LYX - other_LYX).abs().mean()) > 1e-3
    assert alone["ours"].psnr > alone["published"].psnr


@pytest.fixture(scope="module")
def face() -> tuple[list[Effect], list[Composition]]:
    return effects_of(0, 1, steps=(BASE, 2 * BASE), base=BASE)


@pytest.mark.timeout(600)
def test_strength_is_a_dial(face: tuple[list[Effect], list[Composition]]) -> None:
    effects, _ = face
    assert median(effect.correlation for effect in effects) >= 0.95
    assert sum(effect.opposite for effect in effects) >= 2


@pytest.mark.timeout(600)
def test_twice_the_steps_have_nearly_the_same_effect(
    face: tuple[list[Effect], list[Composition]],
) -> None:
    effects, _ = face
    before, after = (sum(e.in_change[n] for e in effects) for n in (BASE, 2 * BASE))
    assert after / before == pytest.approx(1, abs=0.15)


@pytest.mark.timeout(600)
def test_edits_of_two_regions_leave_each_other_alone(
    face: tuple[list[Effect], list[Composition]],
) -> None:
    _, compositions = face
    assert kept(compositions) == pytest.approx(1, abs=0.2)
    assert median(c.change_ratio for c in compositions) == pytest.approx(1, abs=0.2)


@pytest.mark.timeout(600)
def test_the_guard_halves_what_leaks(face: tuple[list[Effect], list[Composition]]) -> None:
    effects, _ = face
    for effect in effects:
        assert effect.guarded_roir < 0.5 * effect.roir
        assert effect.guarded_in_change > 0.8
