"""A finished run through the readers that people have: webdataset, datasets, pyarrow, DuckDB,
Polars.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image
from rich.console import Console

from cluster.runner import run

SHARDS, PICTURES, EDITS = 2, 3, 2
LAYOUTS = {"edited": "png", "pairs": "edited.png"}
"""Layout -> the field that holds the edited image."""


@dataclass(frozen=True)
class Run:
    """A finished run, and its rows by the member's key as the manifest has them."""

    folder: Path
    rows: dict[str, dict[str, Any]]

    @property
    def tars(self) -> list[str]:
        return [str(path) for path in sorted((self.folder / "images").glob("*.tar"))]


@pytest.fixture(scope="module")
def finished(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Run]:
    root = tmp_path_factory.mktemp("readers")
    pattern = shards.write_shards(root / "in", SHARDS, PICTURES)
    runs: dict[str, Run] = {}

    def make(layout: str) -> Run:
        if layout not in runs:
            folder = root / layout
            made = shards.config(
                tiny_checkpoint, pattern, folder, output={"folder": str(folder), "layout": layout}
            )
            assert run(made, console=Console(quiet=True)).exit_code == 0
            table = pq.read_table(folder / "manifest" / "edits-00000.parquet")
            rows = {row["member"].partition(".")[0]: row for row in table.to_pylist()}
            assert len(rows) == SHARDS * PICTURES * EDITS
            runs[layout] = Run(folder, rows)
        return runs[layout]

    return make


@pytest.mark.parametrize("layout", LAYOUTS)
def test_webdataset_finds_every_edit_once(
    finished: Callable[[str], Run], shards: ModuleType, layout: str
) -> None:
    found = finished(layout)
    reader = webdataset.WebDataset(found.tars, shardshuffle=False, empty_check=False)
    samples = {sample["__key__"]: sample for sample in reader}
    assert samples.keys() == found.rows.keys()
    for key, sample in samples.items():
        row = found.rows[key]
        assert hashlib.sha256(sample[LAYOUTS[layout]]).hexdigest() == row["sha256"]
        assert json.loads(sample["json"])["direction"] == row["direction"]
        if layout == "pairs":
            original = Image.open(BytesIO(sample["original.png"]))
            seed = 100 * int(row["shard"].removeprefix("in-")) + row["index"]
            np.testing.assert_array_equal(original, shards.picture(seed))
            assert Image.open(BytesIO(sample["mask.png"])).size == (16, 16)


def test_webdataset_decodes_as_the_card_says(finished: Callable[[str], Run]) -> None:
    found = finished("pairs")
    reader = webdataset.WebDataset(found.tars, shardshuffle=False).decode("pil")
    for sample in reader:
        assert sample["edited.png"].size == (16, 16)
        assert sample["json"]["shard"] == found.rows[sample["__key__"]]["shard"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_datasets_reads_the_tars_streaming_and_not(
    finished: Callable[[str], Run], tmp_path: Path, layout: str, shards: ModuleType
) -> None:
    """In a process of its own, offline, with its caches below the test's folder."""
    found = finished(layout)
    field = LAYOUTS[layout]
    script = f"""
import hashlib, json
from datasets import load_dataset
tars = {found.tars!r}
out = []
for streaming in (True, False):
    rows = load_dataset("webdataset", data_files=tars, split="train", streaming=streaming)
    found = {{}}
    for row in rows:
        pixels = row[{field!r}].convert("RGB").tobytes()
        facts = row["json"]
        facts = json.loads(facts) if isinstance(facts, (str, bytes)) else facts
        found[row["__key__"]] = [hashlib.sha256(pixels).hexdigest(), facts["strength"]]
    out.append(found)
table = load_dataset("parquet", data_files={str(found.folder / "manifest/edits-*.parquet")!r},
                     split="train")
out.append(sorted(table["sha256"]))
print(json.dumps(out))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        env=shards.environment(
            HF_HOME=str(tmp_path / "home"),
            HF_DATASETS_CACHE=str(tmp_path / "cache"),
            HF_HUB_OFFLINE="1",
            HF_DATASETS_OFFLINE="1",
        ),
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    streamed, stored, hashes = json.loads(done.stdout.splitlines()[-1])
    assert streamed == stored
    assert streamed.keys() == found.rows.keys()
    assert hashes == sorted(row["sha256"] for row in found.rows.values())
    pixels = {
        name.partition(".")[0]: hashlib.sha256(image.astype(np.uint8).tobytes()).hexdigest()
        for name, image in shards.images(found.folder).items()
        if name.endswith(field)
    }
    for key, (digest, strength) in streamed.items():
        assert digest == pixels[key]
        assert strength == pytest.approx(found.rows[key]["strength"], abs=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pyarrow_duckdb_and_polars_see_the_same_manifest(
    finished: Callable[[str], Run], layout: str
) -> None:
    found = finished(layout)
    pattern = str(found.folder / "manifest" / "edits-*.parquet")
    arrow = ds.dataset(str(found.folder / "manifest"), format="parquet").to_table(
        filter=ds.field("strength") > 0
    )
    assert arrow.num_rows == SHARDS * PICTURES
    (counted,) = duckdb.sql(
        f"SELECT count(*), count(DISTINCT sha256), min(strength), sum(in_change) FROM '{pattern}'"
    ).fetchall()
    rows = found.rows.values()
    assert counted[0] == len(found.rows)
    assert counted[1] == len({row["sha256"] for row in rows})
    assert counted[2] == pytest.approx(-0.1)
    assert counted[3] == pytest.approx(sum(row["in_change"] for row in rows), rel=1e-6)
    frame = polars.read_parquet(pattern)
    assert frame.schema["index"] == polars.Int32
    assert frame.schema["strength"] == polars.Float32
    assert frame["member"].to_list() == [row["member"] for row in rows]
    assert frame["shard"].to_list() == sorted(frame["shard"].to_list())


def test_a_row_leads_to_its_image_and_to_its_direction(
    finished: Callable[[str], Run], shards: ModuleType
) -> None:
    found = finished("edited")
    known = duckdb.sql(
        f"SELECT id, region, rank, shard, index FROM '{found.folder}/directions/*.parquet'"
    ).fetchall()
    directions = {row[0]: row[1:] for row in known}
    for row in found.rows.values():
        members = shards.members(found.folder / "images" / row["image"])
        assert hashlib.sha256(members[row["member"]]).hexdigest() == row["sha256"]
        assert directions[row["direction"]] == (
            row["region"], row["rank"], row["shard"], row["index"],
        )  # fmt: skip


def test_vectors_are_the_same_numbers_in_every_reader(finished: Callable[[str], Run]) -> None:
    found = finished("edited")
    path = sorted((found.folder / "directions").iterdir())[0]
    table = pq.read_table(path)
    expected = table["vector"].combine_chunks().to_numpy_ndarray()
    assert expected.dtype == np.float16
    assert expected.shape == (PICTURES, 1, 32, 8, 8)
    flat = expected.reshape(PICTURES, -1).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(flat, axis=1), 1, atol=1e-3)

    duck = duckdb.sql(f"SELECT vector FROM '{path}' ORDER BY index").fetchall()
    np.testing.assert_array_equal(np.array([row[0] for row in duck], np.float32), flat)
    frame = polars.read_parquet(path)
    np.testing.assert_array_equal(np.array(frame["vector"].to_list(), np.float32), flat)
    plain = pq.read_table(path, columns=["vector"])["vector"].combine_chunks().storage
    np.testing.assert_array_equal(np.array(plain.to_pylist(), np.float32), flat)
