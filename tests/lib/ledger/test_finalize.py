from __future__ import annotations

import ast
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from lib.files import schemas, storage
from lib.ledger import quarantine
from lib.ledger.commit import commit, read_commit
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record

SHARDS = ("00000", "00001", "00002", "00003")


@pytest.fixture
def run(folder: RunFolder, fingerprint: str, results: ModuleType) -> RunFolder:
    """Two shards with an error each, one without a good sample, one quarantined; not finalized."""
    folder.add_inputs({shard: f"{shard}.tar" for shard in SHARDS})
    commit(folder, results.shard_result("00001"), fingerprint)
    commit(folder, results.shard_result("00000"), fingerprint)
    commit(folder, results.shard_result("00002", 2, (0, 1)), fingerprint)
    quarantine.quarantine(folder, "00003", "00003.tar", "cut at byte 7", None, 3)
    return folder


@pytest.fixture
def on_disk(tmp_path: Path, results: ModuleType) -> Path:
    """The same on disk, finalized, for readers that know nothing of us."""
    folder = RunFolder(str(tmp_path / "run"))
    folder.open_run(run_record({"weights": "ab12"}, {}))
    fingerprint = folder.read_run()["fingerprint"]
    folder.add_inputs({shard: f"{shard}.tar" for shard in SHARDS[:3]})
    for shard in SHARDS[:2]:
        commit(folder, results.shard_result(shard), fingerprint)
    commit(folder, results.shard_result("00002", 2, (0, 1)), fingerprint)
    finalize(folder)
    return tmp_path / "run"


def test_exactly_these_files_are_left(run: RunFolder) -> None:
    storage.create(run.url("images", "00000-0123456789abcdef.tar"), b"a beaten writer's")
    storage.create(run.url("directions", "00001-0123456789abcdef.parquet"), b"a beaten writer's")
    storage.create(run.url("errors", "00002-0123456789abcdef.parquet"), b"a beaten writer's")
    for folder in ("images", "directions", "errors", "commit", "manifest", "quarantine"):
        storage.create(run.url(folder, ".tmp-0123"), b"a killed writer's")
    storage.create(run.url(".tmp-0123"), b"a killed writer's")
    storage.create(run.url("events", "1.jsonl"), b"{}\n")
    finalize(run)
    names = storage.list_tree(run.root)
    hashed = [re.sub(r"-[0-9a-f]{16}\.", "-<sha16>.", name) for name in names]
    assert hashed == [
        "README.md",
        "commit/00000.parquet",
        "commit/00001.parquet",
        "commit/00002.parquet",
        "directions/00000-<sha16>.parquet",
        "directions/00001-<sha16>.parquet",
        "errors/00000-<sha16>.parquet",
        "errors/00001-<sha16>.parquet",
        "errors/00002-<sha16>.parquet",
        "events/1.jsonl",
        "images/00000-<sha16>.tar",
        "images/00001-<sha16>.tar",
        "index.json",
        "inputs.json",
        "manifest/edits-00000.parquet",
        "manifest/errors-00000.parquet",
        "quarantine/00003.json",
        "run.json",
    ]


def test_files_of_shards_that_may_still_commit_are_kept(run: RunFolder) -> None:
    run.add_inputs({"00004": "00004.tar"})
    kept = [
        run.url("images", "00004-0123456789abcdef.tar"),
        run.url("images", "00003-0123456789abcdef.tar"),
        run.url("images", "holiday.tar"),
    ]
    for url in kept:
        storage.create(url, b"x")
    finalize(run)
    assert all(storage.exists(url) for url in kept)


def test_finalizing_again_changes_nothing(run: RunFolder) -> None:
    finalize(run)
    first = _contents(run)
    finalize(run)
    assert _contents(run) == first


def test_the_order_of_commits_does_not_matter(tmp_path: Path, results: ModuleType) -> None:
    made = []
    record = run_record({"weights": "ab12"}, {})
    for order in (SHARDS, SHARDS[::-1]):
        folder = RunFolder(str(tmp_path / f"run-{order[0]}"))
        folder.open_run(record)
        for shard in order:
            commit(folder, results.shard_result(shard), record["fingerprint"])
        finalize(folder)
        made.append(_contents(folder))
    assert made[0] == made[1]


def test_the_manifest_rolls_over_behind_a_whole_commit_and_drops_stale_parts(
    run: RunFolder,
) -> None:
    index = finalize(run, rows_per_file=3)
    assert [(file["name"], file["rows"]) for file in index["manifest"]] == [
        ("edits-00000.parquet", 8),
        ("edits-00001.parquet", 8),
        ("errors-00000.parquet", 4),
    ]
    parts = [_table(run, f"manifest/edits-0000{i}.parquet") for i in range(2)]
    finalize(run)
    assert storage.list_names(run.url("manifest")) == [
        "edits-00000.parquet",
        "errors-00000.parquet",
    ]
    assert _table(run, "manifest/edits-00000.parquet").equals(pa.concat_tables(parts))


def test_a_run_without_any_edit_still_has_a_readable_manifest(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    commit(folder, results.shard_result("00000", 1, (0,)), fingerprint)
    finalize(folder)
    assert _table(folder, "manifest/edits-00000.parquet").num_rows == 0
    assert _table(folder, "manifest/edits-00000.parquet").schema.equals(schemas.EDITS)


def test_the_index_holds_the_totals_and_the_hashes_of_every_shard(run: RunFolder) -> None:
    returned = finalize(run)
    index = json.loads(storage.read_bytes(run.index_url))
    assert index == returned
    record = read_commit(run.commit_url("00000"))
    assert index["totals"] == {
        "shards": 3,
        "quarantined": 1,
        "samples": 8,
        "errors": 4,
        "edits": 16,
        "marked": 0,
        "dropped": 0,
        "directions": 8,
        "image_bytes": 2 * record.image_bytes,
        "directions_bytes": record.directions_bytes
        + read_commit(run.commit_url("00001")).directions_bytes,
        "statistics_bytes": 0,
        "latents_bytes": 0,
    }
    assert index["regions"] == {"eyes": 8, "mouth": 8}
    assert index["error_kinds"] == {"truncated": 4}
    assert index["quarantined"] == {"00003": "cut at byte 7"}
    assert [entry["shard"] for entry in index["shards"]] == ["00000", "00001", "00002"]
    assert index["shards"][0]["image_sha256"] == record.image_sha256
    assert index["shards"][2]["image"] == ""


@pytest.mark.parametrize("damage", ["torn", "foreign"])
def test_nothing_is_deleted_when_a_commit_is_damaged_or_foreign(
    run: RunFolder, results: ModuleType, damage: str
) -> None:
    storage.create(run.url("images", "00000-0123456789abcdef.tar"), b"a beaten writer's")
    url = run.commit_url("00001")
    if damage == "torn":
        storage.replace(url, storage.read_bytes(url)[:-9])
    else:
        storage.delete(url)
        commit(run, results.shard_result("00001"), "f" * 64)
    before = _contents(run)
    with pytest.raises(CommitDamageError, match=r"commit/00001\.parquet"):
        finalize(run)
    after = _contents(run)
    assert {name: after.get(name) for name in before} == before


def test_the_card_names_what_is_there_and_nothing_else(run: RunFolder) -> None:
    finalize(run)
    card = storage.read_bytes(run.card_url).decode()
    head = yaml.safe_load(card.split("---\n")[1])
    assert [config["data_files"] for config in head["configs"]] == [
        "manifest/edits-*.parquet",
        "manifest/errors-*.parquet",
    ]
    for text in (
        "| edits | 16 |",
        "| edits of region `eyes` | 8 |",
        "and 1 given up",
        "`grid.num_steps` | `40`",
        'sample["png"], sample["json"]',
        "## Licence",
    ):
        assert text in card
    for column in schemas.EDITS.names:
        assert f"| `{column}` |" in card
    assert "secret" not in card


def test_every_program_in_the_card_parses(run: RunFolder) -> None:
    finalize(run)
    card = storage.read_bytes(run.card_url).decode()
    programs = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(programs) == 5
    for program in programs:
        ast.parse(program)


def test_a_region_name_cannot_break_the_card(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    result = results.shard_result()
    column = result.rows.schema.get_field_index("region")
    evil = pa.array(["a|b`\n# Title {{ 7 * 7 }}"] * result.rows.num_rows)
    edits = result.rows.set_column(column, schemas.EDITS.field("region"), evil)
    commit(folder, replace(result, rows=edits), fingerprint)
    finalize(folder)
    card = storage.read_bytes(folder.card_url).decode()
    assert "| edits of region `a\\|b' # Title {{ 7 * 7 }}` | 8 |\n" in card


def test_duckdb_polars_and_pyarrow_read_the_same_manifest(on_disk: Path) -> None:
    pattern = str(on_disk / "manifest" / "edits-*.parquet")
    query = f"SELECT shard, index, edit, member, strength FROM '{pattern}' ORDER BY ALL"
    arrow = ds.dataset(sorted(map(str, on_disk.glob("manifest/edits-*.parquet")))).to_table()
    rows = list(
        zip(
            *(arrow[name].to_pylist() for name in ("shard", "index", "edit", "member", "strength")),
            strict=True,
        )
    )
    assert len(rows) == 16
    assert duckdb.sql(query).fetchall() == rows
    columns = ["shard", "index", "edit", "member", "strength"]
    assert pl.scan_parquet(pattern).select(columns).collect().rows() == rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_every_reader_gets_the_vectors_back(
    tmp_path: Path, results: ModuleType, dtype: str
) -> None:
    folder = RunFolder(str(tmp_path / "run"))
    for shard in SHARDS[:2]:
        directions = results.direction_rows(shard, range(3), dtype)
        result = results.shard_result(shard, 3, ())
        commit(folder, replace(result, directions=directions), "f" * 64)
    expected = np.stack(
        [results.vector(shard, index, dtype) for shard in SHARDS[:2] for index in range(3)]
    )
    flat = expected.reshape(6, -1).astype("float32")
    files = sorted(map(str, (tmp_path / "run" / "directions").glob("*.parquet")))
    pattern = str(tmp_path / "run" / "directions" / "*.parquet")

    tables = pa.concat_tables(pq.read_table(file) for file in files)
    vectors = tables["vector"].combine_chunks().to_numpy_ndarray()
    assert vectors.dtype == dtype
    np.testing.assert_array_equal(vectors, expected)
    scanned = ds.dataset(files).to_table()["vector"].combine_chunks().to_numpy_ndarray()
    np.testing.assert_array_equal(scanned, expected)

    by_duckdb = duckdb.sql(f"SELECT vector FROM '{pattern}' ORDER BY shard, index").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in by_duckdb], "float32"), flat)

    frame = pl.read_parquet(files)["vector"]
    by_polars = frame.ext.storage() if hasattr(frame, "ext") else frame
    np.testing.assert_array_equal(np.array(by_polars.to_list(), "float32"), flat)


def test_datasets_reads_the_manifest_and_as_the_card_says_the_directions(
    on_disk: Path, tmp_path: Path, results: ModuleType
) -> None:
    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path / "cache")
    edits = datasets.Dataset.from_parquet(
        str(on_disk / "manifest" / "edits-00000.parquet"), cache_dir=cache
    )
    assert edits.num_rows == 16
    assert edits.column_names == schemas.EDITS.names
    table = pq.read_table(next(on_disk.glob("directions/00000-*.parquet")))
    column = table.schema.get_field_index("vector")
    plain = table.set_column(column, "vector", table["vector"].combine_chunks().storage)
    vectors = datasets.Dataset(plain).with_format("numpy")["vector"]
    expected = [results.vector("00000", index).ravel() for index in (0, 1, 2, 4)]
    np.testing.assert_array_equal(np.asarray(vectors[:]), np.stack(expected))


def test_the_commits_are_a_readable_table_too(on_disk: Path) -> None:
    edits = pl.read_parquet(str(on_disk / "manifest" / "edits-*.parquet"))
    commits = pl.read_parquet(str(on_disk / "commit" / "*.parquet"))
    assert commits.equals(edits)


def _table(folder: RunFolder, name: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(storage.read_bytes(folder.url(*name.split("/")))))


def _contents(folder: RunFolder) -> dict[str, bytes]:
    return {
        name: storage.read_bytes(folder.url(*name.split("/")))
        for name in storage.list_tree(folder.root)
    }
