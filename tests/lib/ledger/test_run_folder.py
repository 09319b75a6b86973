from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib.files import storage
from lib.fingerprint import fingerprint as fingerprint_of
from lib.ledger import quarantine
from lib.ledger.run_folder import RunConflict, RunFolder
from lib.ledger.run_record import run_record
from lib.ledger.snapshot import Counts

FIELDS: dict[str, Any] = {
    "grid": {"num_steps": 50, "spacing": "trailing"},
    "edit": {"strengths": [-0.1, 0.1]},
    "weights": "ab12",
}


def test_a_run_claims_an_empty_folder_and_may_come_back(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "out"))
    run = run_record(FIELDS, {"output": {"folder": "out"}})
    folder.open_run(run)
    folder.open_run(run_record(FIELDS, {"output": {"folder": "elsewhere"}}))
    assert folder.read_run() == run
    assert storage.list_tree(folder.root) == ["run.json"]
    assert run["fingerprint"] == fingerprint_of(FIELDS)
    assert run["versions"]["pyarrow"]


def test_another_fingerprint_is_refused_with_the_differing_fields_named(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "out"))
    folder.open_run(run_record(FIELDS, {}))
    other = {
        "grid": {"num_steps": 40, "spacing": "trailing"},
        "edit": {"strengths": [-0.1, 0.2]},
        "weights": "ab12",
        "salvage": True,
    }
    with pytest.raises(RunConflict) as caught:
        folder.open_run(run_record(other, {}))
    lines = str(caught.value).splitlines()
    assert "  grid.num_steps: 50 / 40" in lines
    assert "  edit.strengths: [-0.1,0.1] / [-0.1,0.2]" in lines
    assert "  salvage: <absent> / true" in lines
    assert not any("spacing" in line or "weights" in line for line in lines)
    assert folder.read_run()["fields"] == FIELDS


def test_a_driver_that_comes_second_compares_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(str(tmp_path / "out"))
    real_create = storage.create

    def overtaken(url: str, data: bytes) -> None:
        real_create(url, json.dumps(run_record(FIELDS | {"weights": "cd34"}, {})).encode())
        real_create(url, data)

    monkeypatch.setattr(storage, "create", overtaken)
    with pytest.raises(RunConflict, match='weights: "cd34" / "ab12"'):
        folder.open_run(run_record(FIELDS, {}))


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project")
    with pytest.raises(RunConflict, match=r"found README\.md without a run\.json"):
        RunFolder(str(tmp_path)).open_run(run_record(FIELDS, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"v": 1, "fingerprint": "ab"}'])
def test_a_run_json_of_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunConflict, match=r"expected a run\.json written by deltah"):
        RunFolder(str(tmp_path)).open_run(run_record(FIELDS, {}))


def test_a_run_of_another_version_is_refused(tmp_path: Path) -> None:
    text = json.dumps(run_record(FIELDS, {}) | {"v": 99})
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunConflict, match="expected a folder of version 3, got 99"):
        RunFolder(str(tmp_path)).open_run(run_record(FIELDS, {}))


def test_credentials_reach_neither_run_json_nor_inputs_json(folder: RunFolder) -> None:
    folder.add_inputs({"00000": "s3://user:secret@faces/00000.tar?token=secret"})
    for url in (folder.run_url, folder.inputs_url):
        assert b"secret" not in storage.read_bytes(url)
    assert folder.inputs() == {"00000": "s3://***@faces/00000.tar?token=***"}
    config = folder.read_run()["config"]
    assert config["input"]["shards"] == ["s3://***@faces/{00000..00003}.tar"]


def test_inputs_are_the_union_over_all_starts(folder: RunFolder) -> None:
    assert folder.inputs() == {}
    folder.add_inputs({"b": "1/b.tar", "a": "1/a.tar"})
    folder.add_inputs({"c": "1/c.tar", "a": "2/a.tar"})
    assert folder.inputs() == {"a": "2/a.tar", "b": "1/b.tar", "c": "1/c.tar"}


def test_progress_is_told_by_names_alone(folder: RunFolder) -> None:
    shards = ["d", "c", "b", "a", "x.y"]
    folder.add_inputs({shard: f"{shard}.tar" for shard in shards})
    storage.create(folder.commit_url("b"), b"not opened")
    storage.create(folder.commit_url("x.y"), b"not opened")
    storage.create(folder.url("commit", ".tmp-c.parquet"), b"a writer was killed")
    quarantine.quarantine(folder, "c", "c.tar", "cut at byte 7", None, 1)
    assert folder.committed() == {"b", "x.y"}
    assert folder.quarantined() == {"c": "cut at byte 7"}
    assert folder.pending(shards) == ["d", "a"]
    assert folder.counts() == Counts(inputs=5, committed=2, quarantined=1)
    assert folder.counts().pending == 2
    assert folder.counts(["a", "b"]) == Counts(inputs=2, committed=1, quarantined=0)


def test_a_shard_that_moves_on_while_it_is_listed_is_never_missed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.add_inputs({"a": "a.tar"})
    quarantine.quarantine(folder, "a", "a.tar", "its worker died", None, 3)
    real = storage.list_names

    def slow(url: str) -> list[str]:
        names = real(url)
        if not storage.exists(folder.commit_url("a")):  # a late worker does it after all
            storage.create(folder.commit_url("a"), b"not opened")
            quarantine.release(folder, "a")
            folder.add_inputs({"b": "b.tar"})
        return names

    monkeypatch.setattr(storage, "list_names", slow)
    now = folder.snapshot()
    assert (now.committed, now.quarantined, now.pending) == ({"a"}, frozenset(), {"b"})
    assert folder.counts() == Counts(inputs=2, committed=1, quarantined=0)


def test_the_first_reason_of_a_quarantine_stays_until_it_is_released(folder: RunFolder) -> None:
    url = "s3://user:secret@faces/c.tar"
    assert quarantine.quarantine(folder, "c", url, f"{url} is cut", f"at {url}", 3)
    assert not quarantine.quarantine(folder, "c", url, "another", None, 1)
    record = json.loads(storage.read_bytes(folder.quarantine_url("c")))
    assert record["reason"] == "s3://***@faces/c.tar is cut"
    assert record["attempts"] == 3
    assert "secret" not in json.dumps(record)
    quarantine.release(folder, "c")
    quarantine.release(folder, "c")
    assert folder.pending(["c"]) == ["c"]


@pytest.mark.parametrize("shard", ["", ".hidden", "..", "a/b", "a\\b", "a\0b"])
def test_a_shard_name_that_is_no_file_name_is_refused(shard: str) -> None:
    with pytest.raises(ValueError, match="a shard name becomes a file name"):
        RunFolder("out").commit_url(shard)
