"""Figures of rows by scope: every edit once in `all`, medians where the mean says nothing, and the
numbers of a reconstruction once an image.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lib.files import schemas
from lib.metrics.disentanglement import matrix
from lib.metrics.edit_rows import EditRows, edit_rows
from pipelines.evaluation import run_sums
from pipelines.evaluation.figures import figure_rows
from pipelines.evaluation.run_sums import RunSums

SCHEMA = schemas.edits_with(["score_id", "change_smile", "change_hat"])


def table(shard: str, images: int, regions: tuple[str, ...], seed: int) -> pa.Table:
    """Four edits of every region of every image, with random numbers."""
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for index in range(images):
        psnr = float(generator.uniform(20, 40))
        for edit, (region, strength) in enumerate(
            (r, s) for r in regions for s in (-0.2, -0.1, 0.1, 0.2)
        ):
            row = {field.name: empty(field) for field in SCHEMA}
            row |= {"index": index, "edit": edit, "region": region, "rank": 0, "psnr": psnr}
            row |= {"strength": strength, "direction": f"{shard}{index}{region}"}
            for name in ("in_change", "out_change", "roir", "score_id", "change_smile"):
                row[name] = float(generator.lognormal())
            row["filtered"] = "roir < 1" if row["roir"] >= 1 else None
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def empty(field: pa.Field) -> Any:
    if pa.types.is_list(field.type):
        return []
    if pa.types.is_string(field.type):
        return None if field.nullable else ""
    return None if field.nullable else 0


def rows_of(shard: str, found: pa.Table) -> EditRows:
    return edit_rows(shard, found, lambda row: str(row["rank"]))


def figures(sums: RunSums) -> dict[tuple[str, str], Any]:
    rows = list(figure_rows(sums, matrix(sums.effects)))
    found = {(row.scope, row.metric): row.figure for row in rows}
    assert len(found) == len(rows)
    return found


def test_every_edit_counts_once_in_all_and_in_its_region() -> None:
    found = table("s", 6, ("eyes", "mouth"), 0)
    sums = RunSums({})
    sums.add(rows_of("s", found))
    made = figures(sums)
    values = found.to_pylist()
    assert made["all", "edits"].value == 48
    assert made["all", "images"].value == 6
    of_eyes = [row["in_change"] for row in values if row["region"] == "eyes"]
    assert made["eyes", "in_change"].value == pytest.approx(np.mean(of_eyes))
    assert made["eyes/0", "in_change"].value == made["eyes", "in_change"].value
    roir = [row["roir"] for row in values]
    assert made["all", "roir"].value == pytest.approx(np.median(roir))
    once = {row["index"]: row["psnr"] for row in values}
    assert made["all", "psnr"].value == pytest.approx(np.mean(list(once.values())))
    assert ("eyes", "psnr") not in made
    broken = sum(row["filtered"] is not None for row in values)
    assert made["all", "filtered"].value == made["all", "filtered: roir < 1"].value == broken
    assert ("all", "in_l2") in made, "zeros are numbers"
    assert ("all", "posterior_gap") not in made, "null is none"


def test_a_region_called_all_does_not_count_twice() -> None:
    sums = RunSums({})
    sums.add(rows_of("s", table("s", 3, ("all",), 1)))
    made = figures(sums)
    assert made["all", "edits"].value == 12
    assert made["all/0", "edits"].value == 12


def test_shards_in_any_order_give_the_same_figures() -> None:
    tables = {name: table(name, 4 + n, ("eyes", "mouth"), n) for n, name in enumerate("abc")}
    made = []
    for order in ("abc", "cba"):
        sums = RunSums({})
        for shard in order:
            sums.add(rows_of(shard, tables[shard]))
        made.append(figures(sums))
    assert made[0].keys() == made[1].keys()
    for key, figure in made[0].items():
        other = made[1][key]
        for name in ("value", "low", "high"):
            one, two = getattr(figure, name), getattr(other, name)
            assert math.isnan(one) == math.isnan(two), key
            assert math.isnan(one) or one == pytest.approx(two, rel=1e-9), key


def test_a_shard_without_edits_adds_nothing() -> None:
    sums = RunSums({})
    sums.add(rows_of("s", table("s", 0, ("eyes",), 0)))
    assert not sums.edits


def test_directions_beyond_a_bound_are_counted_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_sums, "MOST_NAMES", 2)
    found = table("s", 3, ("eyes", "hair", "mouth", "nose"), 2)
    sums = RunSums({})
    sums.add(rows_of("s", found))
    assert sums.scopes == [
        "all", "eyes", "eyes/0", "hair", "hair/0", "mouth", "mouth/others", "nose", "nose/others",
    ]  # fmt: skip
    made = figures(sums)
    assert made["mouth/others", "in_change"].value == made["mouth", "in_change"].value
