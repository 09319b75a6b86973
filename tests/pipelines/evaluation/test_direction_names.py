"""Edits of a library are called by label, else by a rank that is theirs alone, else by their id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.evaluation.direction_names import direction_names

COLUMNS = pa.schema(
    [("id", pa.string()), ("region", pa.string()), ("rank", pa.int32()), ("label", pa.string()),
     ("shard", pa.string()), ("index", pa.int32())]
)  # fmt: skip


def row(direction: str | None, *added: str, rank: int = 0) -> dict[str, Any]:
    return {
        "direction": direction, "rank": rank, "added_directions": list(added),
        "added_ranks": [rank + 1] * len(added),
    }  # fmt: skip


def library(path: Path, *rows: tuple[Any, ...]) -> dict[str, Any]:
    values = [dict(zip(COLUMNS.names, values, strict=True)) for values in rows]
    pq.write_table(pa.Table.from_pylist(values, schema=COLUMNS), path)
    return {"discover": {"method": "library", "path": str(path)}}


def test_a_run_that_finds_its_directions_names_them_by_rank() -> None:
    names, notice = direction_names({"discover": {"method": "jacobian"}})
    assert notice is None
    assert names(row("a1", rank=2)) == "2"
    assert names(row("a1", "b2", rank=2)) == "2+3"
    assert names(row(None)) == "sdedit"
    assert names.sources == {}


def test_a_library_gives_labels_ranks_ids_and_where_directions_were_found(tmp_path: Path) -> None:
    config = library(
        tmp_path / "lib.parquet",
        ("a" * 16, "mouth", 0, "smile", "faces-1", 3),
        ("b" * 16, "mouth", 1, None, None, None),
        ("c" * 16, "eyes", 0, None, "faces-1", 3),
        ("d" * 16, "eyes", 0, None, "faces-2", 5),
        ("e" * 16, "hair", 0, "dark", "faces-1", 1),
        ("f" * 16, "hair", 1, "dark", "faces-1", 2),
    )
    names, notice = direction_names(config)
    assert notice is None
    found = {letter: names(row(letter * 16)) for letter in "abcdef"}
    assert found == {
        "a": "smile", "b": "1", "c": "c" * 8, "d": "d" * 8, "e": "0", "f": "1",
    }  # fmt: skip
    assert names.sources["d" * 16] == ("faces-2", 5)
    assert "b" * 16 not in names.sources


def test_a_library_that_is_gone_leaves_ids_and_a_notice(tmp_path: Path) -> None:
    config = {"discover": {"method": "library", "path": str(tmp_path / "gone.parquet")}}
    names, notice = direction_names(config)
    assert notice is not None
    assert "cannot be read" in notice
    assert names(row("a" * 16)) == "a" * 8


def test_learned_editors_are_named_by_label_wherever_the_other_directions_come_from(
    tmp_path: Path,
) -> None:
    learned = {"1" * 16: "smile", "2" * 16: "wink", "3" * 16: "7"}
    names, _ = direction_names({"discover": {"method": "jacobian"}}, learned)
    assert names(row("1" * 16, rank=-1)) == "smile"
    assert names(row("a" * 16, rank=2)) == "2"
    assert names(row("3" * 16, rank=-1)) == "7 33333333"  # no rank
    assert names(row("4" * 16, rank=-1)) == "4" * 8  # run.json says nothing of it
    config = library(tmp_path / "lib.parquet", ("a" * 16, "mouth", 0, "smile", None, None))
    names, _ = direction_names(config, learned)
    assert names(row("a" * 16)) == "smile"
    assert names(row("1" * 16, rank=-1)) == "smile 11111111"
    assert names(row("2" * 16, "a" * 16, rank=-1)) == "wink+smile"
    (tmp_path / "lib.parquet").unlink()
    names, notice = direction_names(config, learned)
    assert notice is not None
    assert names(row("2" * 16, rank=-1)) == "wink"
