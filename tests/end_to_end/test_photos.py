"""Real photographs, packed by GNU tar as a user would, through the embedded model."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import skimage
from PIL import Image

BUNDLED = Path(skimage.__file__).parent / "data"
PHOTOS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png",
    "grass.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "retina.jpg",
    "rocket.jpg",
)  # fmt: skip
SEVERAL = ("multipage.tif", "no_time_for_that_tiny.gif")
"""Files of more than one picture, of some ten pixels each."""


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the photographs as JPEG, grey JPEG, PNG and what they were, and things that lie
    about in such folders.
    """
    folder = tmp_path_factory.mktemp("photos") / "album"
    folder.mkdir()
    for number, name in enumerate(PHOTOS):
        photo, stem = Image.open(BUNDLED / name), Path(name).stem
        match number % 4:
            case 0:
                photo.convert("RGB").save(folder / f"{stem}.JPG", quality=90)
            case 1:
                photo.convert("L").save(folder / f"{stem}.jpeg")
            case 2:
                photo.save(folder / f"{stem}.png")
            case _:
                shutil.copy(BUNDLED / name, folder)
    for name in SEVERAL:
        shutil.copy(BUNDLED / name, folder)
    (folder / "notes.txt").write_text("holiday")
    (folder / ".DS_Store").write_bytes(b"\0")
    return folder


@pytest.mark.timeout(240)
def test_every_photograph_is_edited_or_says_why_not(
    album: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = tmp_path / "album.tar"
    subprocess.run(["tar", "--sort=name", "-cf", shard, "-C", album, "."], check=True)
    made = shards.config(
        "embedded",
        shard,
        tmp_path / "run",
        input={"shards": [str(shard)], "min_side": 8},
        grid={"num_steps": 5},
        segment={"regions": {"centre": {"box": [0.25, 0.25, 0.75, 0.75]}}},
        discover={"max_rounds": 2},
        output={"folder": str(tmp_path / "run"), "layout": "pairs", "format": "webp"},
    )
    done = shards.deltah("run", shards.write_config(tmp_path / "run.yaml", made), timeout_s=200)
    assert done.returncode == 0, done.stderr

    (errors,) = (tmp_path / "run" / "manifest").glob("errors-*.parquet")
    failed = {row["key"]: row["kind"] for row in pq.read_table(errors).to_pylist()}
    assert failed == {
        "multipage": "animated",
        "no_time_for_that_tiny": "animated",
        "notes": "no_image",
    }
    (edits,) = (tmp_path / "run" / "manifest").glob("edits-*.parquet")
    rows = pq.read_table(edits).to_pylist()
    sizes = {row["key"]: (row["source_width"], row["source_height"]) for row in rows}
    assert sizes == {Path(name).stem: Image.open(BUNDLED / name).size for name in PHOTOS}
    assert len(rows) == 2 * len(PHOTOS)
    assert all(row["crop_width"] == min(sizes[row["key"]]) for row in rows)
    assert all(0 < row["in_change"] < 2 for row in rows)

    images = shards.images(tmp_path / "run")
    assert len(images) == 2 * len(rows), "an original and an edit in each row"
    assert {image.shape for image in images.values()} == {(64, 64, 3)}
    proof = shards.deltah("verify", tmp_path / "run", "--deep")
    assert proof.returncode == 0, proof.stdout
    assert "12 samples ok, 3 in errors" in proof.stdout
