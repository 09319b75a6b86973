"""Any two sets of shards, matched by key: numbers against scikit-image and numpy, and nothing is
lost that does not match.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cluster.cli import main

WIDTH, HEIGHT = 48, 32


def pixels(seed: int, change: int = 0, width: int = WIDTH) -> np.ndarray:
    """A smooth picture; the right half brighter by `change`."""
    coarse = np.random.default_rng(seed).integers(60, 180, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, HEIGHT), Image.Resampling.BICUBIC)
    found = np.asarray(image).astype(np.int16)
    found[:, width // 2 :] += change
    return found.clip(0, 255).astype(np.uint8)


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def right_half() -> bytes:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:, WIDTH // 2 :] = 255
    return png(mask)


@pytest.fixture
def folders(tmp_path: Path, shards: ModuleType) -> Path:
    """Six originals in two shards; the edited ones lie in other shards, in another order."""
    for shard in range(2):
        members = []
        for number in range(3 * shard, 3 * shard + 3):
            members += [(f"p{number}.png", png(pixels(number))), (f"p{number}.m.png", right_half())]
        shards.write_tar(tmp_path / "in" / f"a-{shard}.tar", members)
    order = [4, 0, 5, 1, 3]
    for shard, numbers in enumerate((order[:2], order[2:])):
        members = [(f"p{n}.png", png(pixels(n, 20 + 4 * n))) for n in numbers]
        shards.write_tar(tmp_path / "out" / f"b-{shard}.tar", members)
    return tmp_path


def evaluate(folder: Path, *more: object) -> int:
    arguments = (
        "evaluate", "--originals", folder / "in" / "*.tar", "--edited", folder / "out" / "*.tar",
        "--output", folder / "evaluation", *more,
    )  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(left.value.code or 0)


def figures(folder: Path) -> Mapping[str, Any]:
    table = pl.read_parquet(folder / "evaluation" / "figures.parquet")
    assert set(table["scope"]) == {"all"}
    return {row["metric"]: row for row in table.to_dicts()}


def test_numbers_of_pairs_are_those_of_scikit_image(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(folders, "--masks", "m.png") == 0
    found = figures(folders)
    pairs = [(pixels(n), pixels(n, 20 + 4 * n)) for n in (0, 1, 3, 4, 5)]
    scaled = [(a / 127.5 - 1, b / 127.5 - 1) for a, b in pairs]
    expected = {
        "l1": np.mean([np.abs(a - b).mean() for a, b in scaled]),
        "l2": np.mean([np.square(a - b).mean() for a, b in scaled]),
        "psnr": np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs]),
        "in_change": np.mean([np.abs(a - b)[:, WIDTH // 2 :].mean() for a, b in scaled]),
        "roir": 0.0,
    }
    for metric, value in expected.items():
        assert found[metric]["value"] == pytest.approx(value, abs=1e-5), metric
        assert found[metric]["count"] == 5
    similar = [
        structural_similarity(a, b, channel_axis=2, gaussian_weights=True, sigma=1.5,
                              use_sample_covariance=False, data_range=2.0)
        for a, b in scaled
    ]  # fmt: skip
    assert found["ssim"]["value"] == pytest.approx(np.mean(similar), abs=2e-3)
    errors = pl.read_parquet(folders / "evaluation" / "errors.parquet").to_dicts()
    assert [(e["key"], e["kind"], e["shard"]) for e in errors] == [("p2", "no_edited", "a-0.tar")]
    assert "5 images" in capsys.readouterr().out


def test_what_does_not_match_or_cannot_be_read_is_listed_and_the_rest_is_measured(
    folders: Path, shards: ModuleType
) -> None:
    shards.write_tar(
        folders / "out" / "b-2.tar",
        [
            ("p2.png", b"no image"),
            ("stranger.png", png(pixels(9))),
            ("p9.png", png(pixels(1, width=16))),
        ],
    )
    shards.write_tar(folders / "in" / "a-2.tar", [("p9.png", png(pixels(9)))])
    assert evaluate(folders) == 0
    assert figures(folders)["l1"]["count"] == 5
    errors = pl.read_parquet(folders / "evaluation" / "errors.parquet").to_dicts()
    kinds = {e["key"]: e["kind"] for e in errors}
    assert kinds == {"p2": "not_an_image", "stranger": "no_original", "p9": "size"}


def test_a_key_of_several_originals_belongs_to_none(folders: Path, shards: ModuleType) -> None:
    shards.write_tar(folders / "in" / "a-2.tar", [("p4.png", png(pixels(9)))])
    assert evaluate(folders) == 0
    errors = pl.read_parquet(folders / "evaluation" / "errors.parquet")
    assert ("p4", "ambiguous") in set(errors.select("key", "kind").iter_rows())


def test_models_score_pairs_and_a_second_call_measures_nothing_again(
    folders: Path, clip: Path, tmp_path: Path
) -> None:
    config = tmp_path / "evaluate.yaml"
    scores = {"clip": {"kind": "similarity", "model": str(clip)}}
    rules = {"filters": {"rules": ["roir < 0.1"]}}
    config.write_text(json.dumps({"evaluate": rules}))
    assert evaluate(folders, "--config", config) == 2, "there is no inside without masks"
    config.write_text(json.dumps({"scores": scores}))
    assert evaluate(folders, "--config", config, "--embedding", clip) == 0
    found = figures(folders)
    assert 0 < found["score_clip"]["value"] < 1
    spread = json.loads((folders / "evaluation" / "spread.json").read_text())
    assert (spread["originals"], spread["dimensions"]) == (5, 8)
    assert spread["scopes"]["all"]["frechet_distance"]["value"] > 0
    rows = sorted((folders / "evaluation" / "rows").glob("*.parquet"))
    moments = [path.stat().st_mtime_ns for path in rows]
    assert len(rows) == 2
    assert evaluate(folders, "--config", config, "--embedding", clip) == 0
    assert [path.stat().st_mtime_ns for path in rows] == moments


def test_bad_usage_is_refused_in_a_sentence(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (
        ["evaluate", "--originals", "x.tar"],
        ["evaluate", str(folders), "--output", "x"],
        ["evaluate", "--originals", f"{folders}/none-*.tar", "--edited", "x.tar", "--output", "y"],
        ["evaluate", "--originals", f"{folders}/in/a-0.tar", "--edited", f"{folders}/none.tar",
         "--output", str(folders / "y")],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as left:
            main(arguments)
        assert left.value.code == 2, arguments
        assert "expected" in capsys.readouterr().err


def test_a_shard_that_is_none_is_named_in_the_end_and_the_others_are_measured(
    folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folders / "out" / "b-2.tar").write_bytes(b"no tar" * 200)
    assert evaluate(folders) == 1
    assert "b-2" in capsys.readouterr().out
    assert figures(folders)["l1"]["count"] == 5
    (folders / "in" / "a-2.tar").write_bytes(b"no tar" * 200)
    assert evaluate(folders) == 2
    assert "--originals" in capsys.readouterr().err
