"""Whole runs with the section `evaluate`: columns of their own, filters that mark and drop, and the
ledger that accounts for all of it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cluster.settlement import filtered_sentence
from cluster.views.status import show_status
from lib.files import schemas, storage
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.summary import summary
from lib.ledger.verification import verify
from lib.problems import ConfigProblem, ModelProblem
from pipelines.config import RunConfig
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.inputs import expand_inputs
from pipelines.located import located
from pipelines.plan import make_plan
from pipelines.run_claim import run_claim

PICTURES = 5
EDITS = 4


def run_of(
    tiny_checkpoint: Path, shards: ModuleType, root: Path, name: str, evaluate: dict[str, Any]
) -> tuple[RunFolder, list[dict[str, Any]]]:
    """(folder, rows) of one shard with four edits an image, finalized and verified."""
    shard = root / "in.tar"
    if not shard.exists():
        shards.write_tar(shard, shards.samples(PICTURES))
    made = config(tiny_checkpoint, shards, shard, root / name, evaluate)
    folder, _ = shards.work(made, [shard])
    finalize(folder)
    found = verify(folder, deep=True)
    assert (found.problems, found.notes) == ((), ())
    return folder, pq.read_table(folder.commit_url("in")).to_pylist()


def config(
    tiny_checkpoint: Path, shards: ModuleType, shard: Path, folder: Path, evaluate: dict[str, Any]
) -> RunConfig:
    made: RunConfig = shards.config(
        tiny_checkpoint, shard, folder, evaluate=evaluate,
        edit={"strengths": [-0.2, -0.1, 0.1, 0.2]}, output={"layout": "pairs"},
    )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluated")


@pytest.fixture(scope="module")
def plain(
    tiny_checkpoint: Path, shards: ModuleType, root: Path
) -> tuple[RunFolder, list[dict[str, Any]]]:
    return run_of(tiny_checkpoint, shards, root, "plain", {})


def half(rows: list[dict[str, Any]], column: str) -> float:
    """A bound that half of the rows are under."""
    return round(float(np.median([row[column] for row in rows])), 6)


def test_marked_edits_stay_and_name_the_first_rule_they_break(
    plain: Any,
    tiny_checkpoint: Path,
    shards: ModuleType,
    root: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, before = plain
    assert {row["filtered"] for row in before} == {None}
    rules = [f"in_change < {half(before, 'in_change')}", f"roir < {half(before, 'roir')}"]
    folder, rows = run_of(tiny_checkpoint, shards, root, "marked", {"filters": {"rules": rules}})
    expected = []
    for row in before:
        broken = [
            rule
            for rule, column in zip(rules, ("in_change", "roir"), strict=True)
            if not row[column] < float(rule.split()[2])
        ]
        expected.append(broken[0] if broken else None)
    assert [row["filtered"] for row in rows] == expected
    assert {None, *rules} == set(expected), "all cases occur"
    for row, same in zip(rows, before, strict=True):
        unmarked = row | {"filtered": None, "image": same["image"]}  # whose side files say it
        assert unmarked == same, "filters change no pixel and no number"
    counts = dict(sorted(Counter(rule for rule in expected if rule).items()))
    index = finalize(folder)
    assert (index["marked"], index["dropped"]) == (counts, {})
    assert index["totals"]["marked"] == sum(counts.values())
    assert summary(folder).marked == counts
    show_status(folder.root)
    status = capsys.readouterr().out
    assert all(f"marked, not {rule}" in status for rule in counts)
    said = filtered_sentence(index)
    assert said.startswith(f"; {sum(counts.values())} of {len(rows)} edits marked (")
    assert all(f"{count} not {rule}" in said for rule, count in counts.items())
    card = storage.read_bytes(folder.card_url).decode()
    assert all(f"| edits marked: not `{rule}` | {n} |" in card for rule, n in counts.items())


def test_dropped_edits_leave_neither_row_nor_image_but_a_gap(
    plain: Any, tiny_checkpoint: Path, shards: ModuleType, root: Path
) -> None:
    plain_folder, before = plain
    bound = half(before, "in_change")
    rule = f"in_change < {bound}"
    filters = {"filters": {"rules": [rule], "action": "drop"}}
    folder, rows = run_of(tiny_checkpoint, shards, root, "dropped", filters)
    kept = [row for row in before if row["in_change"] < bound]
    assert 0 < len(kept) < len(before)
    assert [(r["index"], r["edit"], r["sha256"]) for r in rows] == [
        (r["index"], r["edit"], r["sha256"]) for r in kept
    ]
    assert {row["filtered"] for row in rows} == {None}
    members = shards.members(Path(folder.root) / "images" / rows[0]["image"])
    images = {name for name in members if ".edited." in name}
    assert images == {row["member"] for row in rows}
    dropped = len(before) - len(kept)
    index = finalize(folder)
    assert (index["marked"], index["dropped"]) == ({}, {rule: dropped})
    assert index["totals"]["dropped"] == dropped
    lost = set(range(PICTURES)) - {row["index"] for row in rows}
    errors = [
        row
        for file in index["manifest"]
        if file["name"].startswith("errors-")
        for row in pq.read_table(folder.url("manifest", file["name"])).to_pylist()
    ]
    assert {row["index"] for row in errors} == lost
    assert {(row["stage"], row["kind"]) for row in errors} <= {("evaluate", "filtered")}
    assert filtered_sentence(index) == (
        f"; {dropped} of {len(before)} edits dropped ({dropped} not {rule})"
    )
    assert filtered_sentence(finalize(plain_folder)) == ""


def test_when_everything_is_dropped_every_sample_is_an_error(
    tiny_checkpoint: Path, shards: ModuleType, root: Path
) -> None:
    filters = {"filters": {"rules": ["psnr > 999"], "action": "drop"}}
    folder, rows = run_of(tiny_checkpoint, shards, root, "nothing", filters)
    assert rows == []
    index = finalize(folder)
    assert index["totals"]["edits"] == index["totals"]["samples"] == 0
    assert index["totals"]["errors"] == PICTURES
    assert index["error_kinds"] == {"filtered": PICTURES}
    assert index["dropped"] == {"psnr > 999": PICTURES * EDITS}


def test_an_index_or_a_footer_that_counts_otherwise_is_a_problem(
    tiny_checkpoint: Path, shards: ModuleType, root: Path
) -> None:
    folder, _ = run_of(
        tiny_checkpoint, shards, root, "counted", {"filters": {"rules": ["psnr > 999"]}}
    )
    text = storage.read_bytes(folder.index_url)
    storage.replace(folder.index_url, text.replace(b'"psnr > 999": 20', b'"psnr > 999": 19'))
    assert any("counts other marked edits" in p for p in verify(folder).problems)
    storage.replace(folder.index_url, text)
    table = pq.read_table(folder.commit_url("in"))
    column = table.schema.get_field_index("filtered")
    values = [None, *table["filtered"].to_pylist()[1:]]
    changed = table.set_column(column, table.schema.field(column), [values])
    pq.write_table(changed, folder.commit_url("in"))
    assert any(
        "counts 20 `psnr > 999` marked edits, its rows 19 `psnr > 999`" in p
        for p in verify(folder).problems
    )


def test_models_that_score_make_columns_of_the_run(
    plain: Any, tiny_checkpoint: Path, clip: Path, shards: ModuleType, root: Path
) -> None:
    _, before = plain
    evaluate = {
        "scores": {
            "zoo": {"kind": "similarity", "model": str(clip)},
            "as_told": {
                "kind": "directional", "model": str(clip), "source": "face", "target": "smile",
            },
        },
        "posterior_gap": [800, 300],
        "filters": {"rules": ["score_zoo > -2", "posterior_gap < 99"]},
    }  # fmt: skip
    folder, rows = run_of(tiny_checkpoint, shards, root, "scored", evaluate)
    names = [*schemas.EDITS.names, "score_as_told", "score_zoo"]
    assert pq.read_schema(folder.commit_url("in")).names == names
    manifest = pq.read_table(folder.url("manifest", "edits-00000.parquet"))
    assert manifest.column_names == names
    assert {row["filtered"] for row in rows} == {None}
    for row, same in zip(rows, before, strict=True):
        assert row["sha256"] == same["sha256"], "what measures changes no pixel"
        assert -1 <= row["score_zoo"] <= 1.0001
        assert -1 <= row["score_as_told"] <= 1
        assert row["posterior_gap"] > 0
        assert row["network_evaluations"] == same["network_evaluations"] + 2
    gaps = {row["index"]: row["posterior_gap"] for row in rows}
    assert len(set(gaps.values())) == PICTURES
    assert [row["posterior_gap"] for row in rows] == [gaps[row["index"]] for row in rows]
    card = storage.read_bytes(folder.card_url).decode()
    assert "| `score_zoo` | float32 | similarity of original and edited image |" in card
    made = config(tiny_checkpoint, shards, root / "in.tar", root / "x", evaluate)
    plan = make_plan(made, expand_inputs([str(root / "in.tar")]))
    assert {row["network_evaluations"] for row in rows} == {plan.evaluations}
    assert any("2 evaluating" in text for _, text in plan.rows())


def test_sdedit_is_measured_and_filtered_too(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(2))
    made = shards.config(
        tiny_checkpoint, shard, tmp_path / "run", discover={"method": "none"},
        edit={"method": "sdedit", "sdedit": {"timesteps": [300, 700]}},
        evaluate={"filters": {"rules": ["roir < 99"], "action": "drop"}},
    )  # fmt: skip
    folder, _ = shards.work(made, [shard])
    index = finalize(folder)
    assert index["dropped"] == {"roir < 99": 4}, "the whole image has no ROIR: NaN fulfils no rule"
    assert verify(folder, deep=True).ok


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"filters": {"rules": ["rior < 1"]}}, "nearest is roir"),
        ({"filters": {"rules": ["score_id > 1"]}}, "on no metric of this run"),
        ({"filters": {"rules": ["posterior_gap > 1"]}}, "on no metric of this run"),
        ({"filters": {"rules": ["roir < 1", "roir  <  1"]}}, "distinct rules"),
        ({"filters": {"rules": ["roir < 1"], "action": "keep"}}, "'mark' or 'drop'"),
        ({"attributes": {"classifier": "folder"}}, "expected names with a classifier"),
        ({"scores": {"id": {"kind": "arcface"}}}, "lpips"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, evaluate: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(tiny_checkpoint, shards, tmp_path / "in.tar", tmp_path / "run", evaluate)


def test_models_that_do_not_fit_are_refused_before_work_starts(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    def claim(evaluate: dict[str, Any]) -> None:
        run_claim(config(tiny_checkpoint, shards, tmp_path / "in.tar", tmp_path / "r", evaluate))

    with pytest.raises(ConfigProblem, match=r"images of 64 pixels, and this model makes .* 16"):
        claim({"attributes": {"classifier": "embedded", "names": ["smile"]}})
    with pytest.raises(ConfigProblem, match="no output is called 'smyle'; the nearest is 'smile'"):
        claim({"attributes": {"classifier": "embedded", "names": ["smyle"]}})
    with pytest.raises(ConfigProblem, match=r"evaluate\.scores\.id\.model: the embedded"):
        claim({"scores": {"id": {"kind": "similarity", "model": "embedded"}}})
    with pytest.raises(ModelProblem, match="no folder"):
        claim({"scores": {"id": {"kind": "similarity", "model": str(tmp_path / "none")}}})


def test_all_factors_of_the_embedded_regressor_are_the_default(
    shards: ModuleType, tmp_path: Path
) -> None:
    made = config(Path("embedded"), shards, tmp_path, tmp_path, {"attributes": {}})
    assert made.evaluate.attributes is not None
    assert len(made.evaluate.attributes.names) == 16
    assert RunConfig.model_validate_json(made.model_dump_json()) == made


def test_the_fingerprint_knows_models_by_content_and_libraries_do_not_care(
    tiny_checkpoint: Path, clip: Path, shards: ModuleType, tmp_path: Path
) -> None:
    def fields(evaluate: dict[str, Any], **sections: Any) -> dict[str, Any]:
        made = config(tiny_checkpoint, shards, tmp_path / "in.tar", tmp_path / "run", evaluate)
        return fingerprint_fields(located(made.model_copy(update=sections)))

    moved = tmp_path / "moved"
    moved.symlink_to(clip)
    here, there = (
        fields({"scores": {"id": {"kind": "similarity", "model": str(path)}}})
        for path in (clip, moved)
    )
    assert here == there
    assert here != fields({})
    assert fields({"filters": {"rules": ["roir < 1"]}}) != fields({})
    library = {"pipeline": "direction_library"}
    assert fields({"filters": {"rules": ["roir < 1"]}}, **library) == fields({}, **library)
