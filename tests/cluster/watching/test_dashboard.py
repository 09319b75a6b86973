"""The Grafana dashboard asks only for metrics that a run exports, and can be imported."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

import cluster.watching
from cluster.watching.ray_metrics import COUNTERS, GAUGES, HISTOGRAMS

DASHBOARD: dict[str, Any] = json.loads(
    (Path(cluster.watching.__file__).parent / "grafana.json").read_text()
)
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
EXPRESSIONS = [target["expr"] for panel in PANELS for target in panel["targets"]]
LABELS = {name: {"run", *labels} for name, (_, labels) in (COUNTERS | GAUGES | HISTOGRAMS).items()}


def base(name: str) -> str:
    """The metric that a name in an expression stands for."""
    return re.sub(r"_(bucket|sum|count)$", "", name.removeprefix("ray_"))


def test_every_metric_of_a_run_is_shown_and_no_other() -> None:
    used = {base(name) for text in EXPRESSIONS for name in re.findall(r"\bray_\w+", text)}
    assert used == LABELS.keys()


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expressions_select_and_group_by_labels_that_their_metrics_have(expression: str) -> None:
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)
    labels: set[str] = set()
    for name, selector in re.findall(r"\b(ray_\w+)\{([^}]*)\}", expression):
        asked = set(re.findall(r'(\w+)(?:=~?|!=)"', selector))
        labels |= LABELS[base(name)] | ({"le"} if name.endswith("_bucket") else set())
        assert "run" in asked, "else two runs on one cluster would be added up"
        assert asked <= labels
    for group in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(group.replace(" ", "").split(",")) <= labels


def test_only_what_counts_up_is_read_as_a_rate() -> None:
    for text in EXPRESSIONS:
        assert not {base(name) for name in re.findall(r"rate ?\((ray_\w+)", text)} & GAUGES.keys()


def test_it_is_a_dashboard_of_unique_panels_that_lie_side_by_side() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    assert DASHBOARD["id"] is None, "so that Grafana gives it one"
    ids = [panel["id"] for panel in PANELS]
    assert len(set(ids)) == len(ids)
    assert len({panel["title"] for panel in PANELS}) == len(PANELS)
    for panel in PANELS:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)
    for one, other in itertools.combinations((panel["gridPos"] for panel in PANELS), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_every_variable_that_is_used_is_defined() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$\{?([a-z]+)\}?", text)) <= names
    run = next(each for each in DASHBOARD["templating"]["list"] if each["name"] == "run")
    metric, label = re.findall(r"label_values\((\w+), (\w+)\)", run["query"])[0]
    assert label in LABELS[base(metric)]
