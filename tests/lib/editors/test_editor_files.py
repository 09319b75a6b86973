"""Editors as files and as a table, against the safetensors library's own reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lib.editors.editor_files import content_id, encode_editor, find_editor, read_editor
from lib.editors.editor_record import EditorRecord
from lib.editors.editor_table import editor_url, read_editor_rows, write_editor_rows
from lib.editors.library_editors import EDITOR_HEADER, editor_head, editor_sha256
from lib.problems import ConfigProblem

Record = Callable[..., EditorRecord]
MODEL = "m" * 64


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "b.weight": torch.randn(4, 3, 1, 1, generator=generator),
        "a": torch.randn(2, 5, generator=generator).T,  # not contiguous
        "half": torch.randn(3, generator=generator).half(),
        "count": torch.tensor([3]),
    }


def saved(root: Path, name: str, record: EditorRecord, **more: Tensor) -> str:
    path = root / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_editor(record, tensors() | more))
    return str(path)


def library(root: Path, *records: EditorRecord) -> str:
    for record in records:
        saved(root / "editors", record.id, record)
    write_editor_rows(str(root), records)
    return str(root)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": "direction", "lengths": (0.1, 0.2, 0.3), "shape": (3, 32, 4, 4)},
        {"type": "rectifier", "h_norms": (), "shape": (), "parents": ()},
    ],
)
def test_record_and_tensors_come_back_from_a_file(
    record: Record, tmp_path: Path, changes: dict[str, object]
) -> None:
    made = record(**changes)
    url = saved(tmp_path, "e", made)
    found, values = read_editor(url)
    assert found == made
    assert values.keys() == tensors().keys()
    for name, value in tensors().items():
        assert values[name].dtype == value.dtype
        assert torch.equal(values[name], value)
    with safe_open(url, "pt") as file:
        assert sorted(file.keys()) == sorted(tensors())
        assert json.loads(file.metadata()[EDITOR_HEADER])["editor"]["label"] == "smile ü"
    assert editor_head(url, made.type, MODEL, "editor.start") == made


def test_the_same_editor_gives_the_same_bytes_and_the_same_id(record: Record) -> None:
    turned = dict(reversed(tensors().items()))
    turned["a"] = turned["a"].contiguous()
    assert encode_editor(record(), tensors()) == encode_editor(record(), turned)
    head = {"ignores_time": False, "window": [9, 1]}
    first = content_id("direction_fn", MODEL, head, tensors())
    assert first == content_id("direction_fn", MODEL, dict(reversed(head.items())), turned)
    assert len(first) == 16
    changed = tensors() | {"half": -tensors()["half"]}
    others = {
        content_id("direction_fn", MODEL, head, changed),
        content_id("direction_fn", MODEL, {}, tensors()),
        content_id("rectifier", MODEL, head, tensors()),
        content_id("direction_fn", "n" * 64, head, tensors()),
        content_id("direction_fn", MODEL, head, tensors() | {"a": tensors()["a"].reshape(2, 5)}),
    }
    assert len(others | {first}) == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(
    record: Record, tmp_path: Path, value: float
) -> None:
    url = saved(tmp_path, "e", record(), odd=torch.tensor([0.0, value]))
    with pytest.raises(ConfigProblem, match=r"expected finite values, .* in odd"):
        read_editor(url)


def rewritten(path: Path, header: dict[str, str]) -> str:
    save_file({"a": torch.zeros(2)}, path, metadata=header)
    return str(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({}, "learned editor that deltah wrote"),
        ({"format": "pt"}, "learned editor that deltah wrote"),
        ({EDITOR_HEADER: "{"}, "header cannot be read"),
        ({EDITOR_HEADER: "[]"}, "header cannot be read"),
        ({EDITOR_HEADER: '{"version": 1}'}, "header cannot be read"),
        ({EDITOR_HEADER: '{"version": 2, "editor": {}}'}, "version 1, got 2"),
        ({EDITOR_HEADER: '{"version": 1, "editor": {}}'}, "metadata is missing"),
        ({EDITOR_HEADER: '{"version": 1, "editor": [3]}'}, "header cannot be read"),
        ({EDITOR_HEADER: '{"version": 1, "editor": {"id": "x", "hue": 1}}'}, r"unknown .*'hue'"),
        ({EDITOR_HEADER: '{"version": 1, "editor": {"timesteps": "x"}}'}, "got 'x'"),
    ],
)
def test_files_of_others_and_of_other_releases_are_refused(
    tmp_path: Path, header: dict[str, str], message: str
) -> None:
    url = rewritten(tmp_path / "e.safetensors", header)
    for read in (
        lambda: read_editor(url),
        lambda: editor_head(url, "direction_fn", MODEL, "editor.start"),
        lambda: find_editor(url, "direction_fn", MODEL, "editor.start"),
    ):
        with pytest.raises(ConfigProblem, match=message):
            read()


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"\x02" + bytes(7) + b"[]", b"no tensors", b"\xff" * 64]
)
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "e.safetensors"
    path.write_bytes(content)
    with pytest.raises(ConfigProblem, match="whole safetensors file"):
        read_editor(str(path))
    with pytest.raises(ConfigProblem, match="whole safetensors file"):
        editor_head(str(path), "direction_fn", MODEL, "editor.start")


def test_the_one_editor_of_a_type_is_found_in_a_folder_and_in_a_file(
    record: Record, tmp_path: Path
) -> None:
    wanted = record()
    root = library(tmp_path, wanted, record(id="1" * 16, type="rectifier"))
    url = editor_url(root, wanted.id)
    for path in (root, url):
        found, values = find_editor(path, "direction_fn", MODEL, "editor.start")
        assert found == wanted
        assert torch.equal(values["a"], tensors()["a"])
        assert editor_head(path, "direction_fn", MODEL, "editor.start") == wanted
    hashes = {editor_sha256(path, "direction_fn", "editor.start") for path in (root, url)}
    assert len(hashes) == 1
    assert hashes != {editor_sha256(root, "rectifier", "editor.start")}


def test_editors_that_do_not_fit_are_refused(record: Record, tmp_path: Path) -> None:
    root = library(tmp_path / "several", record(), record(id="1" * 16, label="frown"))
    for kind, path, message in (
        ("direction_fn", root, r"editor\.start: .*found frown \(1111.*smile ü \(0123.*name its"),
        ("rectifier", root, r"editor\.start: .*type rectifier .*found none$"),
        ("direction_fn", str(tmp_path), r"editor\.start: .*found none$"),
        ("direction_fn", str(tmp_path / "absent"), r"editor\.start: .*found none$"),
        ("rectifier", editor_url(root, "1" * 16), "expected a rectifier, got frown, a direction"),
    ):
        for find in (find_editor, editor_head):
            with pytest.raises(ConfigProblem, match=message):
                find(path, kind, MODEL, "editor.start")
    for find in (find_editor, editor_head):
        with pytest.raises(ConfigProblem, match=r"editor\.start: .*model mmmm.* has model nnnn"):
            find(editor_url(root, "1" * 16), "direction_fn", "n" * 64, "editor.start")
        with pytest.raises(ConfigProblem, match=r"absent\.safetensors"):
            find(str(tmp_path / "absent.safetensors"), "direction_fn", MODEL, "editor.start")


def test_records_come_back_from_the_table_in_its_order(record: Record, tmp_path: Path) -> None:
    shift = record(type="direction", lengths=(0.5, 0.25, 0.125), shape=(3, 32, 4, 4))
    other = record(id="2" * 16, label="a", type="rectifier", h_norms=(), shape=(), parents=())
    last = record(id="1" * 16, label="smile ü", type="model_delta", h_norms=(), shape=())
    write_editor_rows(str(tmp_path), [last, shift, other])
    assert read_editor_rows(str(tmp_path)) == (other, shift, last)
    first = (tmp_path / "editors.parquet").read_bytes()
    write_editor_rows(str(tmp_path), [other, last, shift])
    assert (tmp_path / "editors.parquet").read_bytes() == first
    write_editor_rows(str(tmp_path), [])
    assert read_editor_rows(str(tmp_path)) == ()


def test_a_library_without_a_table_has_no_editors_and_a_damaged_table_is_refused(
    tmp_path: Path,
) -> None:
    assert read_editor_rows(str(tmp_path)) == ()
    (tmp_path / "editors.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(ConfigProblem, match=r"editors\.parquet: expected the table"):
        read_editor_rows(str(tmp_path))
