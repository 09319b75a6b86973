"""The ledger of a run that edits nothing: rows are samples, and files are directions and
statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest

from lib.discovery.statistics_files import Study, encode
from lib.discovery.study import ShardSums
from lib.files import parquet, schemas, storage
from lib.ledger.commit import CommitError, ShardResult, commit, read_commit, read_commit_rows
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record
from lib.ledger.summary import summary
from lib.ledger.verification import verify

STUDY = Study(
    method="pca",
    parameters={"components": 1, "mode": "joint", "sketch_rank": 4},
    timesteps=(5,),
    h_norms=(1.0,),
    h_shape=(1, 1, 2),
    h_layer="after",
    model="m",
    vector_dtype="float32",
)
CONFIG = {"pipeline": "direction_library", "output": {"folder": "out"}}


@pytest.fixture
def library(folder: RunFolder) -> RunFolder:
    """The folder, claimed by a run that edits nothing."""
    storage.delete(folder.run_url)
    folder.open_run(run_record({"a": 1}, CONFIG))
    folder.add_inputs({"00000": "in/00000.tar"})
    return folder


@pytest.fixture
def print_(library: RunFolder) -> str:
    return str(library.read_run()["fingerprint"])


def sample_rows(shard: str, indices: list[int], directions: int) -> pa.Table:
    rows = [
        {
            "shard": shard, "index": index, "key": f"face-{index}", "directions": directions,
            "network_evaluations": 12.0, "jvp_count": 40, "vjp_count": 38, "source_width": 64,
            "source_height": 64, "crop_left": 0, "crop_top": 0, "crop_width": 64,
            "crop_height": 64,
        }
        for index in indices
    ]  # fmt: skip
    return pa.Table.from_pylist(rows, schema=schemas.SAMPLES)


@pytest.fixture
def result(results: ModuleType) -> Callable[..., ShardResult]:
    """Five samples, one in error; with a direction each, or with statistics."""

    def make(*, learned: bool = False) -> ShardResult:
        whole: ShardResult = results.shard_result()
        rows = sample_rows("00000", [0, 1, 2, 4], 0 if learned else 1)
        made = replace(whole, rows=rows, images=b"")
        return replace(made, directions=None, statistics=statistics()) if learned else made

    return make


def statistics() -> bytes:
    import torch

    sums = ShardSums(STUDY, "00000")
    for index in (0, 1, 2, 4):
        sums.add(index, torch.tensor([float(index), 1.0]).view(1, 1, 1, 2), {})
    return sums.finish()


@pytest.mark.parametrize("learned", [False, True])
def test_a_commit_of_samples_is_counted_verified_and_finalized(
    library: RunFolder, print_: str, result: Callable[..., ShardResult], learned: bool
) -> None:
    assert commit(library, result(learned=learned), print_) == "committed"
    record, rows = read_commit_rows(library.commit_url("00000"))
    assert (record.rows, record.n_rows, record.n_edits) == ("samples", 4, 0)
    assert record.n_directions == (0 if learned else 4)
    assert rows.schema.equals(schemas.SAMPLES)
    kinds = {file.folder for file in record.files}
    assert kinds == {"statistics" if learned else "directions", "errors"}
    index = finalize(library)
    assert index["rows"] == "samples"
    assert [file["name"] for file in index["merged"]] == ["directions.parquet"] * learned
    assert index["totals"]["directions"] == (1 if learned else 4)
    names = {file["name"] for file in index["manifest"]}
    assert names == {"samples-00000.parquet", "errors-00000.parquet"}
    found = verify(library, deep=True)
    assert (found.problems, found.notes) == ((), ())
    assert (found.samples_ok, found.samples_err, found.edits) == (4, 1, 0)
    assert summary(library).directions == record.n_directions
    assert found.directions == record.n_directions + learned
    assert finalize(library) == index


def test_what_killed_writers_left_under_statistics_is_swept(
    library: RunFolder, print_: str, result: Callable[..., ShardResult]
) -> None:
    commit(library, result(learned=True), print_)
    url = library.url("statistics", f"00000-{'0' * 16}.safetensors")
    storage.create(url, b"left")
    assert "statistics/ holds 1 files that no commit names" in " ".join(verify(library).notes)
    finalize(library)
    assert not storage.exists(url)


def test_what_was_merged_is_gone_when_nothing_is_learned_any_more(
    library: RunFolder, print_: str, result: Callable[..., ShardResult]
) -> None:
    commit(library, result(learned=True), print_)
    finalize(library)
    assert storage.list_names(library.url("merged")) == ["directions.parquet"]
    storage.delete(library.commit_url("00000"))
    finalize(library)
    assert storage.list_names(library.url("merged")) == []


@pytest.mark.parametrize("folder_name", ["merged", "statistics"])
def test_damage_is_found(
    library: RunFolder, print_: str, result: Callable[..., ShardResult], folder_name: str
) -> None:
    commit(library, result(learned=True), print_)
    finalize(library)
    (name,) = storage.list_names(library.url(folder_name))
    url = library.url(folder_name, name)
    data = bytearray(storage.read_bytes(url))
    data[len(data) // 2] ^= 1
    storage.replace(url, bytes(data))
    assert verify(library).problems == ()
    problems = verify(library, deep=True).problems
    assert any(f"{folder_name}/{name} does not have the content" in p for p in problems)
    storage.delete(url)
    assert any(f"{folder_name}/{name} is missing" in p for p in verify(library).problems)


def test_statistics_that_cannot_be_read_stop_finalize_before_anything_is_swept(
    library: RunFolder, print_: str, result: Callable[..., ShardResult]
) -> None:
    commit(library, replace(result(learned=True), statistics=b"words"), print_)
    with pytest.raises(CommitDamageError, match="expected a whole statistics file"):
        finalize(library)
    lacking = encode(STUDY, {})
    storage.delete(library.commit_url("00000"))
    commit(library, replace(result(learned=True), statistics=lacking), print_)
    with pytest.raises(CommitDamageError, match=r"expected the parts \['joint'\], got \[\]"):
        finalize(library)


def test_counts_that_differ_from_what_is_stored_are_found_in_depth(
    library: RunFolder, print_: str, result: Callable[..., ShardResult]
) -> None:
    commit(library, result(), print_)
    url = library.commit_url("00000")
    table = parquet.decode(storage.read_bytes(url), url)
    rows = [row | {"directions": 2 if row["index"] == 1 else 1} for row in table.to_pylist()]
    changed = pa.Table.from_pylist(rows, schema=table.schema)
    storage.replace(url, parquet.encode(changed))
    assert "than the rows say of samples 1" in verify(library, deep=True).problems[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"images": b"x"}, "expected images exactly when a sample is edited, got 1 bytes"),
        ({"rows": sample_rows("00000", [0, 1, 2, 4], 2)}, "count other numbers of directions"),
        ({"rows": sample_rows("00000", [0, 2, 1, 4], 1)}, r"sorted by \(index\)"),
        ({"rows": sample_rows("00000", [0, 1, 2], 1)}, r"missing \[4\]"),
        ({"directions": None}, "count other numbers of directions"),
    ],
)
def test_results_that_contradict_themselves_are_refused(
    library: RunFolder,
    print_: str,
    result: Callable[..., ShardResult],
    change: dict[str, Any],
    sentence: str,
) -> None:
    with pytest.raises(CommitError, match=sentence):
        commit(library, replace(result(), **change), print_)
    assert not library.committed()


def test_edits_in_a_run_that_edits_nothing_are_not_finalized(
    library: RunFolder, print_: str, results: ModuleType
) -> None:
    commit(library, results.shard_result(), print_)
    with pytest.raises(CommitDamageError, match="holds edits made with"):
        finalize(library)
    assert read_commit(library.commit_url("00000")).rows == "edits"
