"""Whole shards through one worker: what is written, that it is the same every time, and that no
sample disturbs another.
"""

from __future__ import annotations

import io
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.receipts import ShardTask
from pipelines.worker import ShardWorker

PICTURES = 9


@dataclass(frozen=True)
class Base:
    """One shard of nine pictures and the run made from it."""

    shard: Path
    run: Path
    rows: list[dict[str, Any]]


@pytest.fixture(scope="module")
def base(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Base:
    root = tmp_path_factory.mktemp("base")
    shard = shards.write_tar(root / "in" / "faces.v1.tar", shards.samples(PICTURES))
    folder, (report,) = shards.work(shards.config(tiny_checkpoint, shard, root / "run"), [shard])
    assert (report.outcome, report.n_in, report.n_ok, report.n_err) == ("committed", 9, 9, 0)
    assert report.n_edits == 18
    return Base(shard, root / "run", rows_of(folder))


def rows_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [
        row
        for shard in sorted(folder.committed())
        for row in pq.read_table(folder.commit_url(shard)).to_pylist()
    ]


def test_every_picture_has_every_edit_and_each_lies_where_its_row_says(
    base: Base, shards: ModuleType
) -> None:
    assert [(r["index"], r["key"], r["edit"], r["region"]) for r in base.rows] == [
        (i, f"picture-{i:03d}", edit, "left") for i in range(PICTURES) for edit in range(2)
    ]
    assert {(r["shard"], r["rank"], r["injection"]) for r in base.rows} == {
        ("faces.v1", 0, "asymmetric")
    }
    assert [round(r["strength"], 6) for r in base.rows] == [-0.1, 0.1] * PICTURES
    (tar,) = {r["image"] for r in base.rows}
    members = shards.members(base.run / "images" / tar)
    assert len(members) == 2 * len(base.rows)
    for row in base.rows:
        image = Image.open(io.BytesIO(members[row["member"]]))
        assert (image.size, image.mode, image.format) == ((16, 16), "RGB", "PNG")
        key = row["member"].removesuffix(".png")
        facts = json.loads(members[f"{key}.json"])
        assert "." not in key, "a reader splits key and field at the first dot"
        assert facts.keys() == row.keys() - {"image", "member", "sha256", "network_evaluations"}
        added = [facts.pop(key) for key in row if key.startswith("added_")]
        assert added == [[]] * 4
        assert facts == pytest.approx({k: row[k] for k in facts}, abs=1e-6)
    assert verify(RunFolder(str(base.run)), deep=True).ok


def test_measures_of_a_row_fit_each_other_and_the_box(base: Base) -> None:
    for row in base.rows:
        assert row["mask_area"] == 0.5
        assert row["roir"] == pytest.approx(row["out_change"] / row["in_change"], rel=1e-6)
        assert (row["t_high"], row["t_low"]) == (832, 332), "of 6 steps: 166 332 499 666 832 999"
        # 5 nodes of inversion and 5 of the reconstruction; each of 2 edits has one evaluation where
        # it begins, two at the other 3 edited nodes, and one at the node below.
        assert row["network_evaluations"] == 5 + 5 + 2 * (1 + 2 * 3 + 1)


def test_directions_are_stored_with_what_found_them(base: Base) -> None:
    (path,) = (base.run / "directions").iterdir()
    table = pq.read_table(path)
    vectors = table["vector"].combine_chunks().to_numpy_ndarray()
    assert vectors.shape == (PICTURES, 1, 32, 8, 8)
    norms = np.linalg.norm(vectors.astype(np.float64).reshape(PICTURES, -1), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-3)
    assert table["index"].to_pylist() == list(range(PICTURES))
    used = {(r["index"], r["direction"]) for r in base.rows}
    assert used == set(zip(range(PICTURES), table["id"].to_pylist(), strict=True))
    assert set(table["timesteps"].to_pylist()[0]) == {332}, "the node nearest to 368"


def test_the_same_config_makes_the_same_bytes_in_another_folder(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shards.work(shards.config(tiny_checkpoint, base.shard, tmp_path), [base.shard])
    assert shards.hashes(tmp_path) == {
        name: digest
        for name, digest in shards.hashes(base.run).items()
        if not name.startswith("manifest/")
    }


def test_two_shards_at_once_are_the_same_as_one_after_the_other(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    paths = [
        shards.write_tar(tmp_path / "in" / f"{n}.tar", shards.samples(3, first=10 * n))
        for n in range(3)
    ]
    pattern = tmp_path / "in" / "*.tar"
    shards.work(shards.config(tiny_checkpoint, pattern, tmp_path / "serial"), paths)
    made = shards.config(tiny_checkpoint, pattern, tmp_path / "threads")
    _, fingerprint = shards.claimed(made, {p.stem: str(p) for p in paths})
    worker = ShardWorker(made.model_dump_json(), fingerprint)
    with ThreadPoolExecutor(2) as pool:
        reports = list(pool.map(worker.run, [ShardTask(p.stem, str(p), 1) for p in paths]))
    assert [r.n_ok for r in reports] == [3] * 3
    assert worker.images_done() == 3 * 3 * 3, "invert, discover and edit of every picture"
    assert shards.hashes(tmp_path / "serial") == shards.hashes(tmp_path / "threads")


def test_done_again_a_shard_is_found_to_be_there(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(1))
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run")
    _, first = shards.work(made, [shard])
    before = shards.hashes(tmp_path)
    _, second = shards.work(made, [shard])
    assert [r.outcome for r in first + second] == ["committed", "committed"]
    assert shards.hashes(tmp_path) == before


@pytest.fixture(scope="module")
def given(base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: Any) -> Path:
    """The pictures of `base` edited along two of its directions, in PNG."""
    root: Path = tmp_path_factory.mktemp("given")
    made = shards.config(tiny_checkpoint, base.shard, root, discover=library(base))
    shards.work(made, [base.shard])
    assert not (root / "directions").exists()
    return root


def library(base: Base) -> dict[str, Any]:
    return {"method": "library", "path": str(base.run / "directions"), "max_directions": 2}


@pytest.mark.parametrize(
    ("section", "size"),
    [("invert", 1), ("invert", 3), ("invert", 8), ("edit", 2), ("edit", 16)],
)
def test_another_batch_size_changes_no_pixel_by_more_than_one_level(
    base: Base,
    given: Path,
    tiny_checkpoint: Path,
    shards: ModuleType,
    tmp_path: Path,
    section: str,
    size: int,
) -> None:
    """With the directions given: where they are searched, another fingerprint starts the search
    from other noise.
    """
    made = shards.config(
        tiny_checkpoint,
        base.shard,
        tmp_path,
        discover=library(base),
        **{section: {"batch_size": size}},
    )
    shards.work(made, [base.shard])
    usual, other = shards.images(given), shards.images(tmp_path)
    assert usual.keys() == other.keys()
    assert len(usual) == PICTURES * 4
    assert max(int(np.abs(usual[name] - other[name]).max()) for name in usual) <= 1


def test_a_direction_of_a_region_that_this_run_lacks_is_refused_by_its_name(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    discover = {**library(base), "ids": [base.rows[0]["direction"]]}
    made = shards.config(
        tiny_checkpoint,
        base.shard,
        tmp_path,
        discover=discover,
        segment={"regions": {"top": {"box": [0, 0, 1, 0.5]}}},
    )
    with pytest.raises(ConfigProblem, match=r"discover\.ids.*\['left'\].*\['top'\]"):
        shards.work(made, [base.shard])


def test_a_region_of_the_whole_picture_has_no_outside_to_change(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(1))
    made = shards.config(
        tiny_checkpoint,
        shard,
        tmp_path / "run",
        segment={"regions": {"all": {"box": [0, 0, 1, 1]}}, "max_area": 1.0},
    )
    folder, _ = shards.work(made, [shard])
    for row in rows_of(folder):
        assert row["in_change"] > 0
        assert row["out_change"] == 0
        assert np.isnan(row["roir"])
    (tar,) = (tmp_path / "run" / "images").iterdir()
    assert b"NaN" not in b"".join(d for n, d in shards.members(tar).items() if n.endswith("json"))


def test_pairs_hold_the_original_and_the_mask_beside_the_edit(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(2, masked=True))
    made = shards.config(
        tiny_checkpoint,
        shard,
        tmp_path / "run",
        segment={"regions": {"part": {"file": "part.png"}}},
        output={"folder": str(tmp_path / "run"), "layout": "pairs"},
    )
    folder, _ = shards.work(made, [shard])
    rows = rows_of(folder)
    members = shards.members(tmp_path / "run" / "images" / rows[0]["image"])
    assert len(members) == 4 * len(rows) == 16
    for row in rows:
        key, dot, field = row["member"].partition(".")
        assert dot + field == ".edited.png"
        original = Image.open(io.BytesIO(members[f"{key}.original.png"]))
        np.testing.assert_array_equal(original, shards.picture(row["index"]))
        mask = np.asarray(Image.open(io.BytesIO(members[f"{key}.mask.png"])).convert("L"))
        assert mask[:, :8].min() == 255
        assert mask[:, 8:].max() == 0


@pytest.mark.parametrize(("kind", "extension"), [("jpeg", "jpg"), ("webp", "webp")])
def test_other_formats_show_the_same_edits(
    base: Base,
    given: Path,
    tiny_checkpoint: Path,
    shards: ModuleType,
    tmp_path: Path,
    kind: str,
    extension: str,
) -> None:
    made = shards.config(
        tiny_checkpoint,
        base.shard,
        tmp_path,
        discover=library(base),
        output={"folder": str(tmp_path), "format": kind, "quality": 100},
    )
    shards.work(made, [base.shard])
    found = shards.images(tmp_path)
    worst = max(
        int(np.abs(pixels - found[name.replace("png", extension)]).max())
        for name, pixels in shards.images(given).items()
    )
    assert worst <= (0 if kind == "webp" else 6), "WebP is lossless at 100"


def test_a_wide_picture_is_cropped_and_its_row_says_how(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.sample("wide", 0, width=50, height=20))
    folder, _ = shards.work(shards.config(tiny_checkpoint, shard, tmp_path / "run"), [shard])
    row = rows_of(folder)[0]
    assert {k: v for k, v in row.items() if k.startswith(("source", "crop"))} == {
        "source_width": 50, "source_height": 20,
        "crop_left": 15, "crop_top": 0, "crop_width": 20, "crop_height": 20,
    }  # fmt: skip


def test_a_picture_that_drives_the_network_to_nan_leaves_its_batch_untouched(
    base: Base,
    tiny_checkpoint: Path,
    shards: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    victim = torch.from_numpy(np.array(shards.picture(5))).permute(2, 0, 1).float() / 127.5 - 1

    def poisoned(_self: UNetDenoiser, image_BCHW: torch.Tensor) -> torch.Tensor:
        same_B = (image_BCHW == victim).flatten(1).all(1)
        return torch.where(same_B[:, None, None, None], float("nan"), image_BCHW)

    monkeypatch.setattr(UNetDenoiser, "latent", poisoned)
    folder, (report,) = shards.work(
        shards.config(tiny_checkpoint, base.shard, tmp_path), [base.shard]
    )
    assert (report.n_ok, report.n_err) == (8, 1)
    (errors,) = (tmp_path / "errors").iterdir()
    (error,) = pq.read_table(errors).to_pylist()
    assert (error["index"], error["stage"], error["kind"]) == (5, "invert", "not_finite")
    assert [(r["index"], r["edit"], r["sha256"]) for r in rows_of(folder)] == [
        (r["index"], r["edit"], r["sha256"]) for r in base.rows if r["index"] != 5
    ]
    assert verify(folder, deep=True).ok


def test_a_picture_that_cannot_be_read_moves_no_other_to_another_batch(
    base: Base, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    """Sample 1 is out of the first batch of four; samples 4 to 8 are in the same batches as ever,
    so their bytes are the same.
    """
    members = shards.samples(PICTURES)
    members[1] = (members[1][0], b"no picture")
    shard = shards.write_tar(tmp_path / "in" / base.shard.name, members)
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run")
    folder, (report,) = shards.work(made, [shard])
    assert (report.n_ok, report.n_err) == (8, 1)
    assert [(r["index"], r["sha256"]) for r in rows_of(folder) if r["index"] >= 4] == [
        (r["index"], r["sha256"]) for r in base.rows if r["index"] >= 4
    ]
