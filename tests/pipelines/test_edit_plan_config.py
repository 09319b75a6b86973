"""Plans of edits and SDEdit in a config: what can never be made is refused with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from lib.directions.edit_query import Candidate
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.config_file import load_config
from pipelines.discovery_work import discovery_work
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.planned_edits import planned_choices

BOXES = {"eyes": {"box": [0, 0, 1, 0.5]}, "mouth": {"box": [0, 0.5, 1, 1]}}
GRID = (0, 200, 400, 600, 800)


def config(edit: dict[str, Any], discover: dict[str, Any] | None = None) -> RunConfig:
    return RunConfig.model_validate(
        {
            "input": {"shards": ["in.tar"]},
            "segment": {"regions": BOXES},
            "discover": discover or {"method": "jacobian", "directions": 2},
            "edit": edit,
            "output": {"folder": "out"},
        }
    )


def count(edit: dict[str, Any], discover: dict[str, Any] | None = None) -> int:
    made = config(edit, discover)
    return len(planned_choices(made, discovery_work(made, GRID).candidates))


def plan(*entries: Any, **more: Any) -> dict[str, Any]:
    return {"strengths": [-0.1, 0.1], "plan": {"entries": list(entries), **more}}


PAIR = {"combine": [{"regions": ["eyes"]}, {"regions": ["mouth"], "strengths": [0.1, 0.2, 0.3]}]}


def test_edits_are_counted_before_the_run() -> None:
    assert count({"strengths": [-0.1, 0.1]}) == 2 * 2 * 2, "regions, directions, strengths"
    assert count(plan({})) == 8
    assert count(plan({"regions": ["eyes"], "max_rank": 1})) == 2
    assert count(plan({"regions": ["eyes"]}, {"ranks": [1], "strengths": [0.5]})) == 4 + 2
    assert count(plan(PAIR)) == (2 * 2) * (2 * 3)
    assert count(plan({}, PAIR, {"regions": ["mouth"]})) == 8 + 24, "the last is there already"


def test_methods_of_the_whole_image_and_of_one_text_have_their_own_directions(clip: Path) -> None:
    pullback = {"method": "pullback", "directions": 3, "timesteps": [400]}
    assert count(plan({"regions": ["image"]}), pullback) == 6
    text = {"method": "text", "model": str(clip), "source": "a face", "target": "a smile"}
    assert count(plan({}), text) == 2 * 1 * 2
    with pytest.raises(ConfigProblem, match=r"entries\.0: no direction .* eyes \(ranks 0\), mouth"):
        count(plan({"ranks": [1]}), text)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (plan({"ranks": [2]}), r"entries\.0: no direction can match it; .*eyes \(ranks 0, 1\)"),
        (plan({}, {"methods": ["jive"]}), r"entries\.1: no direction can match it; .*jacobian"),
        (plan({"regions": ["image"]}), r"entries\.0: no direction can match it"),
        (plan({"ids": ["0a"]}), r"entries\.0\.ids: nothing of the kind is known.*library"),
        (plan({"labels": ["smile"]}), r"entries\.0\.labels: nothing of the kind is known"),
        (plan({"min_score": 0.5}), r"entries\.0\.min_score: nothing of the kind is known"),
        (plan({"combine": [{}, {"ranks": [5]}]}), r"entries\.0\.combine\.1: no direction can"),
        (
            plan({"combine": [{"regions": ["eyes"]}, {"regions": ["eyes"]}]}),
            r"entries\.0: its combinations are all of one region.*same_region: true",
        ),
        (
            plan({"combine": [{"strengths": [k / 10 for k in range(1, 13)]}] * 4}),
            r"entries\.0: expected at most 100,000 edits of an image, got 5,308,416",
        ),
    ],
)
def test_an_entry_that_can_never_make_an_edit_is_refused_by_its_place(
    edit: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigProblem, match=rf"^edit\.plan\.{sentence}"):
        count(edit)


LIBRARY = (
    Candidate("eyes", 0, "jacobian", id="aa00aa00aa00aa00", label="gaze", score=0.9, roir=0.1),
    Candidate("eyes", 1, "jacobian", id="ab11ab11ab11ab11"),
    Candidate("image", 0, "supervised", id="dd33dd33dd33dd33", label="smile"),
)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"ids": ["aa", "dd34"]}, "begins with dd34; the nearest is dd33dd33dd33dd33"),
        ({"ids": ["a"]}, "aa00aa00aa00aa00, ab11ab11ab11ab11 begin with a; give more digits"),
        ({"labels": ["smiel", "gaze"]}, "the label 'smiel'; the nearest is 'smile'"),
        ({"min_score": 0.95}, "no direction can match it"),
        ({"regions": ["mouth"]}, r"no direction can match it.* eyes \(ranks 0, 1\), image"),
    ],
)
def test_what_a_library_lacks_is_named_with_the_nearest(
    entry: dict[str, Any], sentence: str
) -> None:
    made = config(plan(entry), {"method": "library", "path": "library"})
    with pytest.raises(ConfigProblem, match=sentence):
        planned_choices(made, LIBRARY)


@pytest.mark.parametrize(
    ("entry", "count"),
    [({"ids": ["aa", "dd33"]}, 4), ({"labels": ["smile"]}, 2), ({"min_score": 0.5}, 2)],
)
def test_a_library_is_asked_by_id_label_and_score(entry: dict[str, Any], count: int) -> None:
    made = config(plan(entry), {"method": "library", "path": "library"})
    assert len(planned_choices(made, LIBRARY)) == count


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (
            {"plan": {"entries": [{"regions": ["nose"]}]}},
            "edit.plan: names the regions ['nose'], which segment.regions does not define; it"
            " defines ['eyes', 'mouth']",
        ),
        ({"plan": {"entries": []}}, "edit.plan.entries: got [], expected at least 1"),
        (
            {"plan": {"entries": [{}, {"region": ["eyes"]}]}},
            "edit.plan.entries.1.region: unknown key; did you mean `regions`?",
        ),
        (
            {"plan": {"entries": [{"strengths": [0.1, 0.0]}]}},
            "edit.plan.entries.0.strengths: got [0.1, 0.0], expected distinct strengths",
        ),
        (
            {"plan": {"entries": [{"combine": [{"strengths": [1, 1]}, {}]}]}},
            "edit.plan.entries.0.combine.0.strengths: got [1, 1], expected distinct strengths",
        ),
        (
            {"plan": {"entries": [{"combine": [{}]}]}},
            "edit.plan.entries.0.combine: got [{}], expected at least 2",
        ),
        (
            {"plan": {"entries": [{"combine": [{}, {}], "strengths": [0.1]}]}},
            "edit.plan.entries.0.strengths: unknown key; valid keys here: combine, same_region",
        ),
        ({"plan": {"entries": [{"ids": ["xyz"]}]}}, 'edit.plan.entries.0.ids.0: got "xyz"'),
        ({"plan": {"entries": [{"ranks": [-1]}]}}, "edit.plan.entries.0.ranks.0: got -1"),
        ({"plan": {"sample": 0}}, "edit.plan.sample: got 0"),
        ({"plan": {"choose": "all"}}, "edit.plan.choose: unknown key; valid keys here: entries"),
        ({"method": "noise"}, 'edit.method: got "noise"'),
        ({"method": "sdedit"}, "edit.method: sdedit uses no directions; expected"),
        ({"sdedit": {"timesteps": [300, 300]}}, "edit.sdedit.timesteps: got [300, 300]"),
        ({"sdedit": {"timesteps": []}}, "edit.sdedit.timesteps: got [], expected at least 1"),
    ],
)
def test_a_mistake_in_a_plan_is_told_by_its_path(
    edit: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.yaml"
    values = {"input": {"shards": ["a.tar"]}, "output": {"folder": "out"}, "edit": edit}
    values |= {"segment": {"regions": BOXES}, "discover": {"method": "jacobian"}}
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigProblem) as caught:
        load_config(str(path))
    assert sentence in str(caught.value)


def test_sdedit_needs_neither_directions_nor_regions_and_nothing_else_does_without() -> None:
    values = {"input": {"shards": ["a.tar"]}, "output": {"folder": "out"}}
    made = RunConfig.model_validate(values | {"edit": {"method": "sdedit"}})
    assert (made.discover.method, dict(made.segment.regions)) == ("none", {})
    none = {"discover": {"method": "none"}}
    assert RunConfig.model_validate(values | none | {"edit": {"method": "sdedit"}}) == made
    with pytest.raises(ValidationError, match="leaves nothing to shift along"):
        RunConfig.model_validate(values | none)
    with pytest.raises(ValidationError, match="finds nothing to store"):
        RunConfig.model_validate(values | none | {"pipeline": "direction_library"})


def test_keys_that_an_edit_does_not_use_are_not_in_its_fingerprint() -> None:
    usual = fingerprint_fields(config({}))
    assert fingerprint_fields(config({"sdedit": {"seeds": 5}})) == usual
    assert fingerprint_fields(config(plan({}, sample=2))) != usual
    none = {"method": "none"}
    sdedit = fingerprint_fields(config({"method": "sdedit"}, none))
    assert fingerprint_fields(config({"method": "sdedit", **plan(PAIR)}, none)) == sdedit
    more = {"method": "sdedit", "sdedit": {"seeds": 2}}
    assert fingerprint_fields(config(more, none)) != sdedit
