"""Whole shards edited by a plan: combinations, samples, images of which a plan makes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from lib.directions.direction_table import from_table, to_table
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.plan import Plan, make_plan
from pipelines.report.page import write_report

PICTURES = 5
HALVES = {"left": {"box": [0, 0, 0.5, 1]}, "right": {"box": [0.5, 0, 1, 1]}}
PLAN = {
    "entries": [
        {"regions": ["left"], "max_rank": 1},
        {
            "combine": [
                {"regions": ["left"], "strengths": [0.2]},
                {"regions": ["right"], "max_rank": 1, "strengths": [-0.1, 0.3]},
            ]
        },
    ]
}
EDITS = 2 + 2 * 2


@dataclass(frozen=True)
class Base:
    shard: Path
    run: Path
    rows: list[dict[str, Any]]


def config(
    checkpoint: Path, shards: ModuleType, shard: Path, folder: Path, **sections: Any
) -> RunConfig:
    own = {
        "segment": {"regions": HALVES},
        "discover": {"directions": 2},
        "edit": {"plan": PLAN},
    }
    made: RunConfig = shards.config(checkpoint, shard, folder, **(own | sections))
    return made


@pytest.fixture(scope="module")
def base(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Base:
    root = tmp_path_factory.mktemp("base")
    shard = shards.write_tar(root / "in" / "a.tar", shards.samples(PICTURES))
    folder, (report,) = shards.work(config(tiny_checkpoint, shards, shard, root / "run"), [shard])
    assert (report.n_ok, report.n_edits) == (PICTURES, PICTURES * EDITS)
    return Base(shard, root / "run", rows_of(folder))


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return list(pq.read_table(folder.commit_url("a")).to_pylist())


def planned(made: RunConfig) -> Plan:
    return make_plan(made, expand_inputs(made.input.shards))


def test_the_rows_say_what_was_combined(base: Base) -> None:
    (path,) = (base.run / "directions").iterdir()
    table = pq.read_table(path, columns=["id", "index", "region", "rank"]).to_pylist()
    ids = {(d["index"], d["region"], d["rank"]): d["id"] for d in table}
    for index in range(PICTURES):
        rows = [row for row in base.rows if row["index"] == index]
        assert [round(row["strength"], 6) for row in rows] == [-0.1, 0.1, 0.2, 0.2, 0.2, 0.2]
        for row in rows[:2]:
            assert (row["region"], row["direction"]) == ("left", ids[index, "left", 0])
            assert [row[f"added_{w}"] for w in ("directions", "regions", "ranks")] == [[]] * 3
        for number, row in enumerate(rows[2:]):
            assert (row["region"], row["mask_area"]) == ("left+right", 1.0)
            assert row["direction"] == ids[index, "left", number // 2]
            assert row["rank"] == number // 2
            assert row["added_directions"] == [ids[index, "right", 0]]
            assert (row["added_regions"], row["added_ranks"]) == (["right"], [0])
            assert np.allclose(row["added_strengths"], [(-0.1, 0.3)[number % 2]])
    assert verify(RunFolder(str(base.run)), deep=True).problems == ()


def test_the_plan_foretells_edits_and_evaluations(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    found = planned(config(tiny_checkpoint, shards, base.shard, tmp_path))
    assert (found.edits, found.sampled_from) == (EDITS, EDITS)
    assert {row["network_evaluations"] for row in base.rows} == {found.evaluations}
    printed = dict(found.rows())
    assert printed["edits an image, at most"] == "6"
    assert printed["edits in all (estimate)"] == f"{6 * found.images}"
    assert found.images == pytest.approx(PICTURES, abs=1)


def test_a_sample_of_the_plan_makes_so_many_different_edits_an_image(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    def made(folder: str, **edit: Any) -> RunConfig:
        section = {"plan": {**PLAN, "sample": 3}, **edit}
        return config(tiny_checkpoint, shards, base.shard, tmp_path / folder, edit=section)

    folder, (report,) = shards.work(made("one"), [base.shard])
    assert report.n_edits == 3 * PICTURES
    rows = rows_of(folder)
    chosen = {
        i: tuple(
            (r["rank"], round(r["strength"], 3), *np.round(r["added_strengths"], 3))
            for r in rows
            if r["index"] == i
        )
        for i in range(PICTURES)
    }
    assert {len(set(edits)) for edits in chosen.values()} == {3}
    assert len(set(chosen.values())) > 1, "of the 20 triples that there are"
    found = planned(made("plan"))
    assert (found.edits, found.sampled_from) == (3, 6)
    assert {row["network_evaluations"] for row in rows} == {found.evaluations}
    assert dict(found.rows())["edits an image, at most"] == "3, chosen from 6"
    shards.work(made("two"), [base.shard])
    assert shards.hashes(tmp_path / "one") == shards.hashes(tmp_path / "two")


def library(base: Base, path: Path, **changes: Any) -> dict[str, Any]:
    """The directions of the first image, by labels left-0, left-1, right-0, right-1."""
    (stored,) = (base.run / "directions").iterdir()
    found = [d for d in from_table(pq.read_table(stored)) if d.index == 0]
    named = [replace(d, label=f"{d.region}-{d.rank}", **changes) for d in found]
    pq.write_table(to_table(named, "float16"), path)
    return {"method": "library", "path": str(path), "max_rank": 2}


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_other_batches_make_the_same_combinations(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, batch_size: int
) -> None:
    pictures = []
    for size in (16, batch_size):
        made = config(
            tiny_checkpoint, shards, base.shard, tmp_path / str(size),
            discover=library(base, tmp_path / "library.parquet"),
            edit={"plan": {"entries": [{"combine": [{"labels": ["left-1"]}, {"ranks": [0]}]}]},
                  "batch_size": size},
        )  # fmt: skip
        _, (report,) = shards.work(made, [base.shard])
        assert report.n_edits == 4 * PICTURES, "with right-0 alone, for left-0 is of its region"
        pictures.append(shards.images(tmp_path / str(size)))
    one, two = pictures
    assert one.keys() == two.keys()
    assert max(int(np.abs(one[name] - two[name]).max()) for name in one) <= 1


def test_an_image_of_which_the_plan_makes_nothing_is_accounted_for(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """An image whose second direction is not found, where only second directions are asked for."""
    from tasks.discover import JacobianDiscoverer

    found_in = JacobianDiscoverer.__call__

    def poor(self: JacobianDiscoverer, items: Any, reject: Any) -> Any:
        for found in found_in(self, items, reject):
            index = found.segmented.inverted.sample.index
            yield replace(found, directions=found.directions[:1]) if index == 2 else found

    monkeypatch.setattr(JacobianDiscoverer, "__call__", poor)
    made = config(
        tiny_checkpoint, shards, base.shard, tmp_path, edit={"plan": {"entries": [{"ranks": [1]}]}}
    )
    folder, (report,) = shards.work(made, [base.shard])
    assert (report.n_ok, report.n_err) == (PICTURES - 1, 1)
    (path,) = (tmp_path / "errors").iterdir()
    (error,) = pq.read_table(path).to_pylist()
    assert (error["index"], error["stage"], error["kind"]) == (2, "edit", "no_edit")
    assert error["message"].endswith("for this image; its directions are left 0")
    assert verify(folder, deep=True).problems == ()


def test_the_report_shows_combinations_on_sheets_of_their_own(base: Base) -> None:
    path = Path(write_report(str(base.run)))
    page = path.read_text()
    script = (path.parent / "data" / "summary.js").read_text()
    summary = json.loads(script.removeprefix("deltah.begin(").removesuffix(");\n"))
    assert [sheet["title"] for sheet in summary["sheets"]][:5] == [
        "left 0",
        "left 0 with right 0 +0.3", "left 0 with right 0 −0.1",
        "left 1 with right 0 +0.3", "left 1 with right 0 −0.1",
    ]  # fmt: skip
    assert page.count('<td class="text">right 0 +0.3</td>') == 2
    assert "left+right" in page


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "0" * 64}, r"is of model 000000000000, .* this run has model"),
        ({"h_layer": "before"}, "layer before, h .* layer after"),
        ({"window": (250, 200)}, r"edit\.window: direction .* applied in \[250, 200\]"),
        ({"region": "nose"}, r"no regions \['left', 'right', 'image'\]"),
    ],
)
def test_a_library_that_cannot_be_applied_is_refused_by_the_plan(
    base: Base,
    tiny_checkpoint: Path,
    shards: ModuleType,
    tmp_path: Path,
    change: dict[str, Any],
    sentence: str,
) -> None:
    discover = library(base, tmp_path / "library.parquet", **change)
    made = config(tiny_checkpoint, shards, base.shard, tmp_path / "run", discover=discover, edit={})
    with pytest.raises(ConfigProblem, match=sentence):
        planned(made)
    with pytest.raises(ConfigProblem, match=sentence):
        shards.work(made, [base.shard])


def test_directions_of_another_shape_of_h_are_refused_by_the_plan(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    (stored,) = (base.run / "directions").iterdir()
    cut = [replace(d, vector_SCYX=d.vector_SCYX[:, :16]) for d in from_table(pq.read_table(stored))]
    pq.write_table(to_table(cut, "float16"), tmp_path / "cut.parquet")
    discover = {"method": "library", "path": str(tmp_path / "cut.parquet")}
    made = config(tiny_checkpoint, shards, base.shard, tmp_path / "run", discover=discover, edit={})
    with pytest.raises(ConfigProblem, match=r"h \(16, 8, 8\); this run has .* h \(32, 8, 8\)"):
        planned(made)
    transport = {"method": "pullback", "transport": str(tmp_path / "cut.parquet")}
    made = config(
        tiny_checkpoint, shards, base.shard, tmp_path / "run", discover=transport, edit={}
    )
    with pytest.raises(ConfigProblem, match=r"discover\.transport: direction .* h \(16, 8, 8\)"):
        planned(made)


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"edit": {}}, "discover.path: direction"),
        ({"edit": {"window": [330, 170]}}, "edit.window: expected a window that holds a timestep"),
        ({"edit": {"plan": {"entries": [{"ranks": [7]}]}}}, "edit.plan.entries.0: no direction"),
    ],
)
def test_the_verb_plan_says_it_in_one_sentence(
    base: Base,
    tiny_checkpoint: Path,
    shards: ModuleType,
    tmp_path: Path,
    sections: dict[str, Any],
    sentence: str,
) -> None:
    if not sections["edit"]:
        foreign = library(base, tmp_path / "l.parquet", model="0" * 64)
        sections = {**sections, "discover": foreign}
    made = config(tiny_checkpoint, shards, base.shard, tmp_path / "run", **sections)
    done = shards.deltah("plan", shards.write_config(tmp_path / "run.yaml", made))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_a_library_run_is_counted_exactly(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    discover = library(base, tmp_path / "library.parquet")
    made = config(
        tiny_checkpoint, shards, base.shard, tmp_path / "run", discover=discover,
        edit={"plan": {"entries": [{"labels": ["right-1"]}]}},
    )  # fmt: skip
    assert planned(made).edits == 2
    _, (report,) = shards.work(made, [base.shard])
    assert report.n_edits == 2 * PICTURES
