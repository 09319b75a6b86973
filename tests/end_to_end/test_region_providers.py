"""Every provider of regions does the main job: shards in; edited shards, masks and manifest out."""

from __future__ import annotations

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console
from transformers import pipeline

from cluster.runner import run
from cluster.scheduling.orders import Rules
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.masks.class_names import BISENET, PARTS
from pipelines.config import RunConfig

PICTURES = 5
BROKEN = 2
"""The picture whose label map is not there."""
NAMES = ("background", "skin", "l_eye", "r_eye", "hair")
REGIONS = {
    "left": {"box": [0, 0, 0.5, 1]},
    "frame": {"file": "frame.png"},
    "eyes": {"from": "parts", "labels": ["eyes"]},
    "lips": {"from": "map", "labels": ["mouth"]},
    "head": {"from": "parser", "labels": ["hair", "eyes", 1]},
    "nose": {"from": "sam", "points": [[0.5, 0.5]], "within": [0.25, 0.25, 0.75, 0.75]},
}


def face(number: int) -> npt.NDArray[np.str_]:
    """A name for every pixel of picture `number`."""
    found = np.full((16, 16), "skin", dtype="<U10")
    found[:3] = "hair"
    found[5:7, 2 + number % 3 : 5] = "l_eye"
    found[5:7, 11 : 14 + number % 2] = "r_eye"
    found[11, 5:11], found[12, 5:11], found[13, 5:11] = "u_lip", "mouth", "l_lip"
    found[15] = "neck"
    return found


def members(shards: ModuleType) -> list[tuple[str, bytes]]:
    found = []
    for number in range(PICTURES):
        key, names = f"picture-{number}", face(number)
        found.append((f"{key}.png", shards.encoded(shards.picture(number))))
        found.append((f"{key}.frame.png", shards.mask(16, 16, (0, 0, 16, 4))))
        for part in PARTS:
            if (names == part).any():
                white = Image.fromarray((names == part).astype(np.uint8) * 255)
                found.append((f"{key}.{part}.png", shards.encoded(white)))
        if number != BROKEN:
            values = np.vectorize(BISENET.index)(names).astype(np.uint8)
            found.append((f"{key}.labels.png", shards.encoded(Image.fromarray(values))))
    return found


@pytest.fixture(scope="module")
def networks(mask_networks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(tmp_path_factory.mktemp("networks"))
    mask_networks.segformer(root / "parser", NAMES)
    mask_networks.sam(root / "sam")
    return root


def config(
    shards: ModuleType, checkpoint: Path, networks: Path, root: Path, **changes: Any
) -> RunConfig:
    """The main job over one shard; `changes` are of the section `segment`."""
    providers = {
        "parts": {"kind": "part_files"},
        "map": {"kind": "label_map", "file": "labels.png", "classes": "bisenet"},
        "parser": {"kind": "semantic", "model": str(networks / "parser")},
        "sam": {"kind": "mask_generation", "model": str(networks / "sam")},
    }
    segment = {"regions": REGIONS, "providers": providers, "min_area": 0.0, "max_area": 1.0}
    made: RunConfig = shards.config(
        checkpoint,
        shards.write_tar(root / "in" / "in-0.tar", members(shards)),
        root / "run",
        segment=segment | changes,
        edit={"strengths": [0.2], "window": [900, 300], "batch_size": 8},
        output={"folder": str(root / "run"), "layout": "pairs"},
    )
    return made


def edited(made: RunConfig) -> tuple[Path, list[dict[str, Any]]]:
    """Run it; its folder and the manifest's rows, by sample and region."""
    outcome = run(made, console=Console(quiet=True), rules=Rules(workers=1))
    assert (outcome.exit_code, outcome.done) == (0, 1), outcome.sentence
    folder = Path(made.output.folder)
    assert verify(RunFolder(str(folder)), deep=True).problems == ()
    rows = [r for file in (folder / "manifest").glob("edits-*.parquet") for r in read(file)]
    return folder, sorted(rows, key=lambda row: (row["index"], row["region"]))


def read(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def stored_masks(folder: Path, shards: ModuleType) -> dict[bytes, npt.NDArray[np.bool_]]:
    """Stem of the stored sample -> its mask."""
    (tar,) = (folder / "images").glob("*.tar")
    return {
        name.removesuffix(".mask.png"): np.asarray(Image.open(io.BytesIO(data)).convert("L")) > 127
        for name, data in shards.members(tar).items()
        if name.endswith(".mask.png")
    }


@pytest.mark.timeout(180)
def test_every_provider_gives_its_regions_to_the_main_job(
    tiny_checkpoint: Path, shards: ModuleType, networks: Path, tmp_path: Path
) -> None:
    folder, rows = edited(config(shards, tiny_checkpoint, networks, tmp_path))
    assert [(row["index"], row["region"]) for row in rows] == [
        (number, name) for number in range(PICTURES) if number != BROKEN for name in sorted(REGIONS)
    ]
    (errors,) = (read(file) for file in (folder / "errors").glob("*.parquet"))
    assert [(e["index"], e["stage"], e["kind"]) for e in errors] == [
        (BROKEN, "segment", "missing_mask")
    ]

    masks = stored_masks(folder, shards)
    parse = pipeline("image-segmentation", str(networks / "parser"), use_fast=False)
    for row in rows:
        names = face(row["index"])
        picture = shards.picture(row["index"])
        expected = {
            "left": np.indices((16, 16))[1] < 8,
            "frame": np.indices((16, 16))[0] < 4,
            "eyes": np.isin(names, ["l_eye", "r_eye"]),
            "lips": np.isin(names, ["u_lip", "mouth", "l_lip"]),
        }
        if row["region"] == "head":
            found = {each["label"]: np.asarray(each["mask"]) > 0 for each in parse(picture)}
            wanted = [found[n] for n in ("hair", "l_eye", "r_eye", "skin") if n in found]
            expected["head"] = np.any(wanted, axis=0)
        stem = row["member"].removesuffix(".edited.png")
        if row["region"] in expected:
            np.testing.assert_array_equal(masks[stem], expected[row["region"]], row["region"])
        assert row["mask_area"] == pytest.approx(masks[stem].mean())
    assert len({row["mask_sha256"] for row in rows if row["region"] == "nose"}) > 1
    assert len({row["mask_sha256"] for row in rows if row["region"] == "head"}) > 1


@pytest.mark.timeout(180)
def test_masks_are_widened_before_they_are_used_and_hashed(
    tiny_checkpoint: Path, shards: ModuleType, networks: Path, tmp_path: Path
) -> None:
    regions = {"eyes": REGIONS["eyes"]}
    providers = {"parts": {"kind": "part_files"}}
    only = {"regions": regions, "providers": providers}
    made = config(shards, tiny_checkpoint, networks, tmp_path, **only, dilation=1 / 16)
    folder, rows = edited(made)
    masks = stored_masks(folder, shards)
    assert len(rows) == PICTURES
    for row in rows:
        inside = np.pad(np.isin(face(row["index"]), ["l_eye", "r_eye"]), 1)
        cross = [inside[1:-1, 1:-1], inside[2:, 1:-1], inside[:-2, 1:-1]]
        expected = np.any([*cross, inside[1:-1, 2:], inside[1:-1, :-2]], axis=0)
        np.testing.assert_array_equal(masks[row["member"].removesuffix(".edited.png")], expected)


@pytest.mark.timeout(180)
def test_latents_are_stored_without_masks_and_give_the_same_masks_and_edits_later(
    tiny_checkpoint: Path, shards: ModuleType, networks: Path, tmp_path: Path
) -> None:
    made = config(shards, tiny_checkpoint, networks, tmp_path)
    folder, _ = edited(made)
    values = made.model_dump(mode="json")
    stored = str(tmp_path / "latents")
    elsewhere = {
        name: provider | ({"model": str(tmp_path / "nowhere")} if "model" in provider else {})
        for name, provider in values["segment"]["providers"].items()
    }
    storing = values | {
        "pipeline": "store_latents",
        "segment": values["segment"] | {"providers": elsewhere},
        "output": {"folder": stored, "latents": "float32"},
    }
    storing["invert"] = storing["invert"] | {"keep": [values["discover"]["timesteps"][0]]}
    outcome = run(RunConfig.model_validate(storing), console=Console(quiet=True))
    assert (outcome.exit_code, outcome.done) == (0, 1), outcome.sentence
    values["invert"] |= {"latents": stored}
    values["output"] |= {"folder": str(tmp_path / "again")}
    again, _ = edited(RunConfig.model_validate(values))
    same = ("images", "directions", "errors")
    before, after = (
        {name: digest for name, digest in shards.hashes(each).items() if name.startswith(same)}
        for each in (folder, again)
    )
    assert before == after
    assert len(before) == len(same)
