"""Learned editors in the report of a run that finds its own directions."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lib.ledger.run_folder import RunFolder
from pipelines.report.distributions import charts, series_names
from pipelines.report.numbers import read_numbers
from pipelines.report.page import write_report

SMILE, GRIN, EYES = "a" * 16, "b" * 16, "c" * 16
LEARNED = [{"id": SMILE, "label": "smile"}, {"id": GRIN, "label": "smile"},
           {"id": EYES, "label": "eyes"}]  # fmt: skip
CHANGES = {SMILE: 0.5, GRIN: 0.7, EYES: 0.9}


@pytest.fixture
def learned(run: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Of the fixture's four edits a sample (eyes, eyes, mouth, mouth) two are its own directions,
    one is made by `smile`, and the last by `eyes` with a direction of the sample; every other
    sample has another editor called `smile`.
    """
    plain = type(run).row

    def row(self: Any, shard: str, number: int, index: int, position: int, *rest: Any) -> Any:
        found: dict[str, Any] = plain(self, shard, number, index, position, *rest)
        editor = {2: GRIN if index % 2 else SMILE, 3: EYES}.get(position)
        if editor is None:
            return found
        found |= {"region": "eyes", "rank": -1, "direction": editor, "strength": 1.0,
                  "in_change": CHANGES[editor]}  # fmt: skip
        if editor == EYES:
            found |= {"region": "eyes+mouth", "added_directions": [f"{shard}-{index}"],
                      "added_regions": ["mouth"], "added_ranks": [0],
                      "added_strengths": [0.1]}  # fmt: skip
        return found

    monkeypatch.setattr(type(run), "row", row)
    run.start(2)
    path = Path(run.folder.root) / "run.json"
    record = json.loads(path.read_text())
    record["fields"]["learned"] = LEARNED
    path.write_text(json.dumps(record))
    run.add(0)
    run.add(1)
    return run


def summary(page: str) -> dict[str, Any]:
    script = (Path(page).parent / "data" / "summary.js").read_text()
    found: dict[str, Any] = json.loads(script.removeprefix("deltah.begin(").removesuffix(");\n"))
    return found


def column(page: str, table: str, label: str) -> list[Any]:
    """The values of a column of the page's first chunk."""
    script = (Path(page).parent / "data" / f"{table}-0000.js").read_text()
    data = json.loads(f"[{script[script.index('(') + 1 : script.rindex(')')]}]")[2][label]
    if isinstance(data, str):
        values: list[Any] = np.frombuffer(base64.b64decode(data), "<f4").tolist()
        return values
    codes = np.frombuffer(base64.b64decode(data["codes"]), "<i4")
    return [data["texts"][code] if code >= 0 else None for code in codes]


def test_every_editor_has_a_sheet_of_its_own_before_the_directions_of_the_images(
    learned: Any,
) -> None:
    sheets = summary(write_report(learned.folder.root))["sheets"]
    assert [(sheet["title"], sheet["direction"], sheet["edits"]) for sheet in sheets] == [
        ("smile aaaaaa", SMILE, 4),
        ("smile bbbbbb", GRIN, 2),
        ("eyes", "", 12),
        ("eyes with mouth 0 +0.1", EYES, 6),
    ]


def test_charts_draw_editors_apart_from_the_region_that_they_edit(learned: Any) -> None:
    drawn = charts(read_numbers(RunFolder(learned.folder.root)))
    assert drawn["regions"] == ["smile aaaaaa", "smile bbbbbb", "eyes", "eyes+mouth"]
    (of_eyes,) = [line for line in drawn["linearity"] if line["region"] == 2]
    assert [point[0] for point in of_eyes["points"]] == [-0.1, 0.2]  # no learned strength
    (of_smile,) = [line for line in drawn["linearity"] if line["region"] == 0]
    assert of_smile["points"][0] == pytest.approx([1.0, 0.5, 0.5, 0.5])
    assert "learned" in drawn["strengthOf"]
    assert series_names([("eyes", "eyes"), ("", "eyes")]) == ["eyes (learned)", "eyes"]


def test_tables_name_editors_and_the_ids_that_the_manifest_has(learned: Any) -> None:
    page = write_report(learned.folder.root)
    named = set(zip(column(page, "edits", "learned"), column(page, "edits", "direction"),
                    strict=True))  # fmt: skip
    assert {each for each in named if each[0]} == {
        ("smile aaaaaa", SMILE), ("smile bbbbbb", GRIN), ("eyes", EYES),
    }  # fmt: skip
    directions = column(page, "directions", "direction")
    assert directions[:3] == [EYES, SMILE, GRIN]
    assert column(page, "directions", "learned")[:4] == [
        "eyes", "smile aaaaaa", "smile bbbbbb", None,
    ]  # fmt: skip
    # medians are of edits that nothing is combined with, so `eyes` has none
    changes = column(page, "directions", "change in")
    assert np.isnan(changes[0])
    assert changes[1:3] == pytest.approx([0.5, 0.7])
    text = Path(page).read_text()
    assert f'title="learned editor {SMILE}">smile aaaaaa</td>' in text
    assert "<td>-1</td>" not in text
