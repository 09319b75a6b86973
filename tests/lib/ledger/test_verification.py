from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.files import schemas, storage
from lib.ledger import quarantine
from lib.ledger.commit import commit, read_commit
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.summary import summary
from lib.ledger.verification import verify

SHARDS = ("00000", "00001", "00002")


@pytest.fixture
def whole(folder: RunFolder, fingerprint: str, results: ModuleType) -> RunFolder:
    """Two committed shards (sample 3 of each in error) and one quarantined."""
    folder.add_inputs({shard: f"{shard}.tar" for shard in SHARDS})
    for shard in SHARDS[:2]:
        commit(folder, results.shard_result(shard), fingerprint)
    quarantine.quarantine(folder, "00002", "00002.tar", "cut at byte 7", None, 3)
    return folder


@pytest.mark.parametrize("deep", [False, True])
def test_a_whole_run_has_no_problem_and_every_sample_is_counted_once(
    whole: RunFolder, deep: bool
) -> None:
    found = verify(whole, deep=deep)
    assert found.problems == ()
    assert found.notes == ("the run is not finalized: there is no index.json",)
    assert (found.inputs, found.committed, found.quarantined) == (3, 2, 1)
    assert (found.samples_ok, found.samples_err, found.edits) == (8, 2, 16)
    finalize(whole)
    assert verify(whole, deep=deep).notes == ()
    assert verify(whole, deep=deep).ok


def test_a_shard_in_no_place_or_in_two_is_a_problem(
    whole: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    whole.add_inputs({"00003": "00003.tar"})
    commit(whole, results.shard_result("00002"), fingerprint)
    commit(whole, results.shard_result("00009"), fingerprint)
    quarantine.quarantine(whole, "00008", "00008.tar", "died", None, 3)
    assert verify(whole).problems == (
        "shard 00002 is both committed and quarantined; finalize resolves it",
        "shard 00003 is neither committed nor quarantined; run the same command again",
        "shard 00009 is committed but is no input of this run",
        "shard 00008 is quarantined but is no input of this run",
    )
    assert verify(whole, ["00000", "00001"]).problems == ()


def test_a_late_commit_of_a_quarantined_shard_counts_after_finalize(
    whole: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    commit(whole, results.shard_result("00002"), fingerprint)
    finalize(whole)
    assert verify(whole, deep=True).problems == ()
    assert whole.quarantined() == {}


def test_a_foreign_fingerprint_is_a_problem(whole: RunFolder, results: ModuleType) -> None:
    storage.delete(whole.commit_url("00000"))
    commit(whole, results.shard_result("00000"), "f" * 64)
    (problem,) = verify(whole).problems
    assert "its commit was made with fingerprint ffffffffffffffff" in problem


@pytest.mark.parametrize("kind", ["images", "directions", "errors"])
def test_a_missing_file_is_a_problem(whole: RunFolder, kind: str) -> None:
    name = storage.list_names(whole.url(kind))[0]
    storage.delete(whole.url(kind, name))
    assert f"shard 00000: {kind}/{name} is missing" in verify(whole).problems


@pytest.mark.parametrize("kind", ["images", "directions"])
def test_a_file_of_another_size_is_a_problem(whole: RunFolder, kind: str) -> None:
    name = storage.list_names(whole.url(kind))[0]
    data = storage.read_bytes(whole.url(kind, name))
    storage.replace(whole.url(kind, name), data[:-1])
    assert verify(whole).problems == (
        f"shard 00000: {kind}/{name} should have {len(data)} bytes, has {len(data) - 1}",
    )


@pytest.mark.parametrize("kind", ["images", "directions", "errors"])
def test_a_flipped_bit_is_found_by_the_deep_check(whole: RunFolder, kind: str) -> None:
    name = storage.list_names(whole.url(kind))[0]
    data = bytearray(storage.read_bytes(whole.url(kind, name)))
    data[600] ^= 1
    storage.replace(whole.url(kind, name), bytes(data))
    (problem, *_) = [p for p in verify(whole, deep=True).problems if "sha256" in p]
    assert problem.startswith(f"shard 00000: {kind}/{name} does not have the content")


def test_an_image_whose_bytes_are_not_its_rows_is_found_by_the_deep_check(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    folder.add_inputs({"00000": "00000.tar"})
    wrong = replace(results.shard_result(), images=results.shard_result(pixels=b"others").images)
    commit(folder, wrong, fingerprint)
    assert verify(folder).problems == ()
    problems = verify(folder, deep=True).problems
    assert len(problems) == 8
    assert "00000-000000-000.png in images/" in problems[0]
    assert "does not have the sha256" in problems[0]


def test_a_direction_that_is_not_stored_is_found_by_the_deep_check(whole: RunFolder) -> None:
    url = whole.commit_url("00000")
    storage.replace(url, _with_rows(storage.read_bytes(url), _set("direction", 0, "0" * 16)))
    (problem,) = verify(whole, deep=True).problems
    assert problem.endswith("lacks: 0000000000000000")


def test_directions_of_a_library_are_not_looked_for_here(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    folder.add_inputs({"00000": "00000.tar"})
    commit(folder, results.shard_result(own=False), fingerprint)
    assert not read_commit(folder.commit_url("00000")).own_directions
    assert verify(folder, deep=True).ok


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda rows: rows[2:], "shard 00000: sample 0 stands neither in the commit nor in errors"),
        (
            lambda rows: [*rows[:-1], rows[-1] | {"index": 3}],
            "shard 00000: sample 3 stands in the commit and in errors",
        ),
        (
            lambda rows: [rows[0], *rows],
            "shard 00000: edit 0 of sample 0 stands in the commit 2 times",
        ),
        (
            lambda rows: [*rows, rows[-1] | {"index": 7}],
            "shard 00000: sample 7 stands beyond its 5 samples",
        ),
        (
            lambda rows: [rows[0] | {"shard": "00001"}, *rows[1:]],
            "shard 00000: its commit speaks of other shards: 00001",
        ),
        (lambda rows: rows[1:], "shard 00000: its commit counts 8 edits and has 7 rows"),
        (
            lambda rows: [row for row in rows if row["index"] != 4],
            "shard 00000: its commit counts 4 samples ok and 1 in error, its rows 3 and 1",
        ),
    ],
)
def test_rows_that_contradict_the_count_are_named(
    whole: RunFolder,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    expected: str,
) -> None:
    url = whole.commit_url("00000")
    storage.replace(url, _with_rows(storage.read_bytes(url), change))
    assert expected in verify(whole).problems


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_torn_commit_is_a_problem_in_verify_and_in_the_summary(
    whole: RunFolder, keep: int
) -> None:
    url = whole.commit_url("00000")
    storage.replace(url, storage.read_bytes(url)[:keep])
    (problem,) = verify(whole).problems
    assert problem.startswith("shard 00000: ")
    assert "delete it and run the same command again" in problem
    assert len(summary(whole).damaged) == 1


def test_files_that_no_commit_names_are_notes(whole: RunFolder) -> None:
    storage.create(whole.url("images", "00002-0123456789abcdef.tar"), b"left by a killed writer")
    found = verify(whole)
    assert found.ok
    assert found.notes[0].startswith("images/ holds 1 files that no commit names (00002-0123")


def test_a_stale_index_is_a_problem(
    whole: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    finalize(whole)
    whole.add_inputs({"00003": "00003.tar"})
    commit(whole, results.shard_result("00003"), fingerprint)
    (problem,) = verify(whole).problems
    assert problem == ("index.json lacks 1 committed shards (00003); run `deltah finalize` again")
    finalize(whole)
    assert verify(whole, deep=True).ok


def test_a_changed_manifest_is_a_problem(whole: RunFolder) -> None:
    finalize(whole)
    url = whole.url("manifest", "edits-00000.parquet")
    data = bytearray(storage.read_bytes(url))
    data[100] ^= 1
    storage.replace(url, bytes(data))
    assert verify(whole).ok
    assert "manifest/edits-00000.parquet does not have" in verify(whole, deep=True).problems[0]


def test_the_summary_adds_up_the_footers(whole: RunFolder, results: ModuleType) -> None:
    found = summary(whole)
    assert (found.shards.inputs, found.shards.committed, found.shards.pending) == (3, 2, 0)
    assert (found.samples_ok, found.samples_err, found.edits) == (8, 2, 16)
    assert found.image_bytes == 2 * len(results.shard_result().images)
    assert found.error_kinds == {"truncated": 2}
    assert found.quarantined == {"00002": "cut at byte 7"}
    assert found.damaged == ()


def test_a_folder_without_a_run_is_no_run(tmp_path: Any) -> None:
    with pytest.raises(FileNotFoundError):
        verify(RunFolder(str(tmp_path)))


def _set(column: str, row: int, value: object) -> Callable[[list[dict[str, Any]]], Any]:
    def change(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [r | {column: value} if i == row else r for i, r in enumerate(rows)]

    return change


def _with_rows(
    data: bytes, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
) -> bytes:
    """The commit with other rows under its old footer."""
    table = pq.read_table(io.BytesIO(data))
    changed = pa.Table.from_pylist(change(table.to_pylist()), schema=schemas.EDITS)
    sink = io.BytesIO()
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), sink)
    assert json.loads(table.schema.metadata[b"commit"])
    return sink.getvalue()
