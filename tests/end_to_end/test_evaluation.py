"""`deltah evaluate` on small real runs: its figures are those that numpy makes of the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

STRENGTHS = [-0.2, -0.1, 0.1, 0.2]
SHARDS, PICTURES = 2, 4
Evaluate = Callable[..., Any]


@pytest.fixture(scope="module")
def made(
    shards: ModuleType, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of two shards; the first picture of the first is none."""
    root = tmp_path_factory.mktemp("evaluation")
    inputs = []
    for number in range(SHARDS):
        members = shards.samples(PICTURES, first=10 * number, masked=True)
        if number == 0:
            members[0] = (members[0][0], b"no image")
        inputs.append(shards.write_tar(root / "in" / f"in-{number}.tar", members))
    config = shards.config(
        tiny_checkpoint, str(root / "in" / "in-*.tar"), root / "run",
        segment={"regions": {"part": {"file": "part.png"}}},
        edit={"strengths": STRENGTHS}, output={"layout": "edited"},
    )  # fmt: skip
    folder, _ = shards.work(config, inputs)
    return Path(folder.root)


def rows_of(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((run / "commit").glob("*.parquet"))])


def figures_of(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    table = pl.read_parquet(run / "evaluation" / "figures.parquet")
    found = {(row["scope"], row["metric"]): row for row in table.to_dicts()}
    assert len(found) == len(table), "a scope has every metric once"
    return found


def test_figures_of_a_run_are_those_of_its_rows(made: Path, shards: ModuleType) -> None:
    before = shards.files(made)
    done = shards.deltah("evaluate", made)
    assert done.returncode == 0, done.stderr
    assert "ROIR" in done.stdout
    assert "part" in done.stdout
    assert shards.files(made) - before == {"evaluation/figures.parquet"}
    rows, figures = rows_of(made), figures_of(made)
    images = SHARDS * PICTURES - 1
    assert figures["all", "images"]["value"] == images
    assert figures["all", "edits"]["value"] == len(rows)
    for metric in ("in_change", "out_change", "in_l2", "in_ssim", "out_ssim"):
        expected = rows[metric].to_numpy().astype(float)
        found = figures["all", metric]
        assert found["value"] == pytest.approx(expected.mean(), rel=1e-6)
        assert found["low"] <= found["value"] <= found["high"]
        assert found["count"] == len(rows)
    once = rows.unique(["shard", "index"])
    assert figures["all", "psnr"]["value"] == pytest.approx(once["psnr"].mean(), rel=1e-6)
    assert figures["all", "psnr"]["count"] == images
    assert figures["all", "roir"]["value"] == pytest.approx(rows["roir"].median(), rel=1e-6)
    for rank in sorted(set(rows["rank"])):
        of_rank = rows.filter(pl.col("rank") == rank)
        found = figures[f"part/{rank}", "in_change"]
        assert found["value"] == pytest.approx(of_rank["in_change"].mean(), rel=1e-6)


def test_linearity_is_the_correlation_within_an_image(made: Path, shards: ModuleType) -> None:
    assert shards.deltah("evaluate", made).returncode == 0
    found = figures_of(made)["part", "linearity"]
    expected = []
    for _, group in rows_of(made).group_by(["shard", "index", "direction"]):
        size = np.append(0, group["strength"].abs().to_numpy())
        expected.append(np.corrcoef(size, np.append(0, group["in_change"].to_numpy()))[0, 1])
    assert found["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert found["count"] == len(expected)


def test_the_same_command_leaves_the_same_bytes(made: Path, shards: ModuleType) -> None:
    path = made / "evaluation" / "figures.parquet"
    assert shards.deltah("evaluate", made).returncode == 0
    first = path.read_bytes()
    assert shards.deltah("evaluate", made).returncode == 0
    assert path.read_bytes() == first


def test_what_cannot_be_evaluated_is_refused_in_a_sentence(
    made: Path, shards: ModuleType, tmp_path: Path
) -> None:
    nothing = shards.deltah("evaluate", tmp_path)
    assert nothing.returncode == 2
    assert "no run.json" in nothing.stderr
    record = json.loads((made / "run.json").read_text())
    record["config"]["pipeline"] = "store_latents"
    (tmp_path / "latents").mkdir()
    (tmp_path / "latents" / "run.json").write_text(json.dumps(record))
    without = shards.deltah("evaluate", tmp_path / "latents")
    assert without.returncode == 2
    assert "edits nothing" in without.stderr
    record["config"]["pipeline"] = "edit_dataset"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text(json.dumps(record))
    empty = shards.deltah("evaluate", tmp_path / "empty")
    assert empty.returncode == 2
    assert "expected a run with edits" in empty.stderr
    assert shards.deltah("evaluate").returncode == 2
