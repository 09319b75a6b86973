from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lib.files import schemas, storage
from lib.ledger.commit import CommitError, commit, read_commit, read_commit_rows, seal
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.receipts import Failure


class StorageDownError(OSError):
    pass


def test_a_commit_names_every_file_with_its_size_and_hash(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    assert commit(folder, results.shard_result(), fingerprint) == "committed"
    record = read_commit(folder.commit_url("00000"))
    assert (record.n_in, record.n_ok, record.n_err, record.n_edits) == (5, 4, 1, 8)
    assert record.fingerprint == fingerprint
    assert record.own_directions
    assert record.error_kinds == {"truncated": 1}
    for kind, name, size, sha256 in (
        ("images", record.image, record.image_bytes, record.image_sha256),
        ("directions", record.directions, record.directions_bytes, record.directions_sha256),
        ("errors", record.errors, record.errors_bytes, record.errors_sha256),
    ):
        data = storage.read_bytes(folder.url(kind, name))
        assert (len(data), hashlib.sha256(data).hexdigest()) == (size, sha256)
        assert name.rpartition("-")[2].partition(".")[0] == sha256[:16]


def test_rows_lead_to_the_bytes_of_their_image(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    commit(folder, results.shard_result(), fingerprint)
    _, rows = read_commit_rows(folder.commit_url("00000"))
    assert rows.num_rows == 8
    for row in rows.to_pylist():
        data = storage.read_bytes(folder.url("images", row["image"]))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            member = tar.extractfile(row["member"])
            assert member is not None
            assert hashlib.sha256(member.read()).hexdigest() == row["sha256"]


def test_nothing_of_when_where_and_who_is_in_a_commit(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    commit(folder, results.shard_result(), fingerprint)
    record = asdict(read_commit(folder.commit_url("00000")))
    assert not {"host", "attempt", "time", "started", "url"} & record.keys()


def test_building_a_result_twice_gives_the_same_bytes(results: ModuleType) -> None:
    folder = RunFolder("unused")
    first = seal(folder, results.shard_result(), "ab")
    assert seal(folder, results.shard_result(), "ab") == first


def test_the_bytes_do_not_depend_on_how_a_table_is_cut_into_chunks(results: ModuleType) -> None:
    folder = RunFolder("unused")
    whole = results.shard_result()
    cut = replace(
        whole,
        rows=pa.concat_tables(whole.rows.slice(i, 1) for i in range(whole.rows.num_rows)),
        directions=pa.concat_tables([whole.directions.slice(0, 1), whole.directions.slice(1)]),
    )
    assert seal(folder, cut, "ab") == seal(folder, whole, "ab")


def test_a_shard_without_any_good_sample_commits_without_a_tar(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    assert commit(folder, results.shard_result(n_in=2, failed=(0, 1)), fingerprint) == "committed"
    record, rows = read_commit_rows(folder.commit_url("00000"))
    assert (record.image, record.directions, rows.num_rows) == ("", "", 0)
    assert (record.n_ok, record.n_err) == (0, 2)
    assert storage.list_names(folder.url("images")) == []


def test_an_empty_shard_commits(folder: RunFolder, fingerprint: str, results: ModuleType) -> None:
    assert commit(folder, results.shard_result(n_in=0, failed=()), fingerprint) == "committed"
    folder.add_inputs({"00000": "00000.tar"})
    assert verify(folder, deep=True).ok


def test_an_unreadable_stretch_is_an_error_but_no_sample(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    lost = Failure("00000", None, None, "read", "cut", "the tar ends early")
    whole = results.shard_result()
    commit(folder, replace(whole, failures=(lost, *whole.failures)), fingerprint)
    folder.add_inputs({"00000": "00000.tar"})
    record = read_commit(folder.commit_url("00000"))
    assert (record.n_in, record.n_err) == (5, 1)
    assert record.error_kinds == {"cut": 1, "truncated": 1}
    errors = pq.read_table(pa.BufferReader(storage.read_bytes(folder.url("errors", record.errors))))
    assert errors["index"].to_pylist() == [3, None]
    assert verify(folder, deep=True).ok


def test_another_writer_with_the_same_bytes_has_committed_too(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    assert commit(folder, results.shard_result(), fingerprint) == "committed"
    files = storage.list_tree(folder.root)
    assert commit(folder, results.shard_result(), fingerprint) == "committed"
    assert storage.list_tree(folder.root) == files


def test_a_beaten_writer_changes_nothing_and_its_files_are_swept(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    folder.add_inputs({"00000": "00000.tar"})
    assert commit(folder, results.shard_result(pixels=b"first"), fingerprint) == "committed"
    first = {name: _read(folder, name) for name in storage.list_tree(folder.root)}
    assert commit(folder, results.shard_result(pixels=b"second"), fingerprint) == "lost_race"
    left = set(storage.list_tree(folder.root)) - first.keys()
    assert {name.partition("/")[0] for name in left} == {"images"}
    found = verify(folder, deep=True)
    assert found.problems == ()
    assert any("images/ holds 1 files that no commit names" in note for note in found.notes)
    finalize(folder)
    assert not left & set(storage.list_tree(folder.root))
    assert {name: _read(folder, name) for name in first} == first
    assert verify(folder, deep=True).notes == ()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("crash_at", range(4), ids=["images", "directions", "errors", "commit"])
def test_a_crash_at_any_put_leaves_all_or_nothing(
    folder: RunFolder,
    fingerprint: str,
    results: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    crash_at: int,
    before: bool,
) -> None:
    folder.add_inputs({"00000": "00000.tar"})
    with monkeypatch.context() as patched:
        patched.setattr(storage, "create", _failing_create(crash_at, before=before))
        with pytest.raises(StorageDownError):
            commit(folder, results.shard_result(), fingerprint)
    done = crash_at == 3 and not before
    assert folder.pending(["00000"]) == ([] if done else ["00000"])
    assert verify(folder, deep=True).ok == done
    assert commit(folder, results.shard_result(), fingerprint) == "committed"
    finalize(folder)
    assert verify(folder, deep=True).problems == ()
    assert verify(folder, deep=True).notes == ()
    assert len(storage.list_names(folder.url("images"))) == 1


def test_a_part_left_by_a_store_without_atomic_writes_is_written_again(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    result = results.shard_result()
    sealed = seal(folder, result, fingerprint)
    storage.create(folder.url("images", sealed.record.image), sealed.contents["images"][:100])
    assert commit(folder, result, fingerprint) == "committed"
    assert _read(folder, f"images/{sealed.record.image}") == sealed.contents["images"]


def _spoiled(results: ModuleType) -> Iterator[tuple[str, object]]:
    whole = results.shard_result()
    rows = whole.rows.to_pylist()

    def edits(changed: list[dict[str, object]]) -> pa.Table:
        return pa.Table.from_pylist(changed, schema=schemas.EDITS)

    failure = whole.failures[0]
    yield "expected each of 6 samples", replace(whole, n_in=6)
    yield r"expected each of 4 samples .* unexpected \[4\]", replace(whole, n_in=4)
    yield r"missing \[2\]", replace(whole, rows=edits([r for r in rows if r["index"] != 2]))
    yield (
        r"samples \[0\] are in the rows and in",
        replace(whole, failures=(*whole.failures, replace(failure, index=0))),
    )
    yield r"samples \[3\] are more than once", replace(whole, failures=(failure, failure))
    yield "sorted by", replace(whole, rows=edits([*rows[:1], *rows]))
    yield "sorted by", replace(whole, rows=edits(rows[::-1]))
    yield "other shards", replace(whole, rows=edits([*rows[:-1], rows[-1] | {"shard": "00001"}]))
    yield "other shards", replace(whole, failures=(replace(failure, shard="00001"),))
    yield (
        "expected rows with the schema of edits or samples",
        replace(whole, rows=whole.rows.drop_columns(["psnr"])),
    )
    yield "expected images exactly when", replace(whole, images=b"")
    yield "directions that are not stored", replace(whole, directions=whole.directions.slice(1))
    yield (
        "directions: expected a column `vector`",
        replace(whole, directions=whole.directions.drop_columns(["vector"])),
    )
    yield (
        "expected directions with the schema",
        replace(whole, directions=whole.directions.drop_columns(["gap"])),
    )


def test_a_result_that_contradicts_itself_is_refused_and_nothing_is_written(
    folder: RunFolder, fingerprint: str, results: ModuleType
) -> None:
    before = storage.list_tree(folder.root)
    for message, spoiled in _spoiled(results):
        with pytest.raises(CommitError, match=message):
            commit(folder, spoiled, fingerprint)  # type: ignore[arg-type]
    assert storage.list_tree(folder.root) == before


def test_the_footer_is_read_without_the_rows(
    folder: RunFolder, fingerprint: str, results: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(folder, results.shard_result(n_in=400, failed=()), fingerprint)
    url = folder.commit_url("00000")

    def refuse(url: str, max_bytes: int | None = None) -> bytes:
        raise AssertionError(f"{url} was read whole")

    monkeypatch.setattr(storage, "read_bytes", refuse)
    assert read_commit(url).n_edits == 800


def test_what_is_no_commit_is_refused_with_its_name(folder: RunFolder) -> None:
    url = folder.commit_url("00000")
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), table)
    for data in (b"", b"PAR1" + bytes(100) + b"PAR1"):
        storage.replace(url, data)
        for read in (read_commit, read_commit_rows):
            with pytest.raises(CommitDamageError, match=r"00000\.parquet: .* whole Parquet file"):
                read(url)
    storage.replace(url, bytes(table.getvalue()))
    for read in (read_commit, read_commit_rows):
        with pytest.raises(CommitDamageError, match="expected JSON under the metadata key"):
            read(url)
    with pytest.raises(FileNotFoundError):
        read_commit(folder.commit_url("00001"))


def _failing_create(crash_at: int, *, before: bool) -> Callable[[str, bytes], None]:
    """storage.create that fails at its nth call, before or after the object is there."""
    real_create = storage.create
    calls = iter(range(100))

    def create(url: str, data: bytes) -> None:
        fails = next(calls) == crash_at
        if fails and before:
            raise StorageDownError
        real_create(url, data)
        if fails:
            raise StorageDownError

    return create


def _read(folder: RunFolder, name: str) -> bytes:
    return storage.read_bytes(folder.url(*name.split("/")))
