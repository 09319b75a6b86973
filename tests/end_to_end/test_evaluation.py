"""`deltah evaluate` on small real runs: its figures are those that numpy makes of the manifest."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image

from cluster.cli import main

STRENGTHS = [-0.2, -0.1, 0.1, 0.2]
SHARDS, PICTURES = 2, 4
TEXTS = {"source": "face", "target": "smile face"}
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


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str]) -> Evaluate:
    """`deltah evaluate` in this process."""

    def run(*arguments: object) -> Done:
        with pytest.raises(SystemExit) as left:
            main(["evaluate", *map(str, arguments)])
        out, err = capfd.readouterr()
        return Done(int(left.value.code or 0), out, err)

    return run


def rows_of(run: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(path) for path in sorted((run / "commit").glob("*.parquet"))])


def figures_of(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    table = pl.read_parquet(run / "evaluation" / "figures.parquet")
    found = {(row["scope"], row["metric"]): row for row in table.to_dicts()}
    assert len(found) == len(table), "a scope has every metric once"
    return found


def test_figures_of_a_run_are_those_of_its_rows(
    made: Path, shards: ModuleType, evaluate: Evaluate
) -> None:
    before = shards.files(made)
    done = evaluate(made)
    assert done.returncode == 0, done.stderr
    assert "ROIR" in done.stdout
    assert "part" in done.stdout
    plots = {
        f"evaluation/plots/{path}"
        for name in ("linearity", "locality")
        for path in (f"{name}.svg", f"{name}.pdf", f"dark/{name}.svg")
    }
    assert shards.files(made) - before == {"evaluation/figures.parquet", *plots}
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


def test_linearity_is_the_correlation_within_an_image(made: Path, evaluate: Evaluate) -> None:
    assert evaluate(made).returncode == 0
    found = figures_of(made)["part", "linearity"]
    expected = []
    for _, group in rows_of(made).group_by(["shard", "index", "direction"]):
        size = np.append(0, group["strength"].abs().to_numpy())
        expected.append(np.corrcoef(size, np.append(0, group["in_change"].to_numpy()))[0, 1])
    assert found["value"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert found["count"] == len(expected)


def test_the_same_command_leaves_the_same_bytes(made: Path, evaluate: Evaluate) -> None:
    path = made / "evaluation" / "figures.parquet"
    assert evaluate(made).returncode == 0
    first = path.read_bytes()
    assert evaluate(made).returncode == 0
    assert path.read_bytes() == first


def test_what_cannot_be_evaluated_is_refused_in_a_sentence(
    made: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    nothing = evaluate(tmp_path)
    assert nothing.returncode == 2
    assert "no run.json" in nothing.stderr
    record = json.loads((made / "run.json").read_text())
    record["config"]["pipeline"] = "store_latents"
    (tmp_path / "latents").mkdir()
    (tmp_path / "latents" / "run.json").write_text(json.dumps(record))
    without = evaluate(tmp_path / "latents")
    assert without.returncode == 2
    assert "edits nothing" in without.stderr
    record["config"]["pipeline"] = "edit_dataset"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_text(json.dumps(record))
    empty = evaluate(tmp_path / "empty")
    assert empty.returncode == 2
    assert "expected a run with edits" in empty.stderr
    assert evaluate().returncode == 2


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


@pytest.fixture(scope="module")
def scored(made: Path, shards: ModuleType, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # fmt: skip  # noqa: E501
    """A copy of the run, evaluated with models in two worker processes."""
    run = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(made, run, ignore=shutil.ignore_patterns("evaluation"))
    section = {
        "scores": {
            "clip": {"kind": "similarity", "model": str(clip)},
            "smile": {"kind": "directional", "model": str(clip), **TEXTS},
        },
        "filters": {"rules": ["in_change > 0.01", "score_clip > 0.5"]},
    }
    config = written(run.parent / "evaluate.yaml", section)
    done = shards.deltah("evaluate", run, "--config", config, "--embedding", clip, "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert "Fréchet distance" in done.stdout
    return run


def test_models_measure_the_stored_pictures_against_the_originals(scored: Path, clip: Path) -> None:
    import torch

    from lib.metrics.scores import load_similarity

    rows = rows_of(scored)
    measured = pl.concat(
        [
            pl.read_parquet(path).with_columns(shard=pl.lit(path.name.rpartition("-")[0]))
            for path in sorted((scored / "evaluation" / "rows").glob("*.parquet"))
        ]
    )
    edits = measured.filter(pl.col("edit").is_not_null())
    assert len(edits) == len(rows)
    assert len(measured) - len(edits) == SHARDS * PICTURES - 1, "a row an original"
    row = rows.row(0, named=True)
    config = json.loads((scored / "run.json").read_text())["config"]
    source = Path(config["input"]["shards"][0]).parent / f"{row['shard']}.tar"
    before = picture_in(source, f"{row['key']}.png")
    after = picture_in(scored / "images" / row["image"], row["member"])
    images = [
        torch.from_numpy(a.copy()).permute(2, 0, 1)[None] / 127.5 - 1 for a in (before, after)
    ]
    expected = float(load_similarity(str(clip), torch.device("cpu"))(*images))
    found = edits.filter(
        (pl.col("shard") == row["shard"])
        & (pl.col("index") == row["index"])
        & (pl.col("edit") == row["edit"])
    )["score_clip"].item()
    assert found == pytest.approx(expected, abs=1e-4)
    figures = figures_of(scored)
    assert figures["all", "score_clip"]["value"] == pytest.approx(
        edits["score_clip"].mean(), rel=1e-5
    )
    assert figures["part", "score_smile"]["count"] == len(rows)


def picture_in(tar: Path, name: str) -> np.ndarray:
    with tarfile.open(tar) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return np.asarray(Image.open(io.BytesIO(file.read())).convert("RGB"))


def test_rules_of_an_evaluation_are_counted_and_change_nothing(scored: Path) -> None:
    figures, rows = figures_of(scored), rows_of(scored)
    assert rows["filtered"].null_count() == len(rows)
    weak = int((rows["in_change"] <= 0.01).sum())
    assert figures["all", "filtered"]["value"] >= weak
    if weak:
        assert figures["all", "filtered: in_change > 0.01"]["value"] == weak


def test_distances_of_the_sets_are_those_of_scipy(scored: Path) -> None:
    import scipy.linalg

    tables = [pl.read_parquet(p) for p in sorted((scored / "evaluation" / "rows").glob("*.parquet"))]  # fmt: skip  # noqa: E501
    measured = pl.concat(tables)
    sets = [
        np.array(measured.filter(chosen)["embedding"].to_list(), np.float64)
        for chosen in (pl.col("edit").is_null(), pl.col("edit").is_not_null())
    ]
    covariances = [np.cov(x.T) for x in sets]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1])
    shift = np.square(sets[0].mean(0) - sets[1].mean(0)).sum()
    expected = float(shift + np.trace(covariances[0] + covariances[1] - 2 * np.real(root)))
    spread = json.loads((scored / "evaluation" / "spread.json").read_text())
    found = spread["scopes"]["all"]["frechet_distance"]["value"]
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert spread["scopes"]["part"]["edited"] == len(sets[1])


def test_a_killed_evaluation_goes_on_and_ends_in_the_same_bytes(
    scored: Path, evaluate: Evaluate, clip: Path
) -> None:
    folder = scored / "evaluation"
    before = {name: (folder / name).read_bytes() for name in ("figures.parquet", "spread.json")}
    first, second = sorted((folder / "rows").glob("*.parquet"))
    kept = first.stat().st_mtime_ns
    second.unlink()
    config = scored.parent / "evaluate.yaml"
    done = evaluate(scored, "--config", config, "--embedding", clip)
    assert done.returncode == 0, done.stderr
    assert "(1 by an earlier call)" in done.stderr
    assert first.stat().st_mtime_ns == kept
    assert before == {name: (folder / name).read_bytes() for name in before}


def test_a_shard_whose_pictures_are_gone_is_named_and_the_rest_is_evaluated(
    made: Path, evaluate: Evaluate, clip: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(made, run, ignore=shutil.ignore_patterns("evaluation"))
    lost = sorted((run / "images").glob("*.tar"))[0]
    lost.unlink()
    done = evaluate(run, "--embedding", clip)
    assert done.returncode == 1
    assert "in-0" in done.stdout
    figures = figures_of(run)
    assert figures["all", "edits"]["value"] == len(rows_of(run))
    assert figures["all", "frechet_distance"]["count"] < len(rows_of(run))


def test_mistakes_in_the_config_of_an_evaluation_are_named(
    made: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    for section, sentence in (
        ({"score": {}}, "scores"),
        ({"posterior_gap": [300]}, "needs the diffusion model"),
        ({"scores": {"a": {"kind": "similarity", "model": "/none"}}}, "is no folder"),
        ({"scores": {"a": {"kind": "lpips"}}}, "deltah[lpips]"),
    ):
        done = evaluate(made, "--config", written(tmp_path / "e.yaml", section))
        assert done.returncode == 2, section
        assert sentence in done.stderr


def test_pairs_need_no_input_shards_and_a_run_s_own_scores_are_those_of_its_stored_pictures(
    shards: ModuleType, tiny_checkpoint: Path, clip: Path, evaluate: Evaluate, tmp_path: Path
) -> None:
    import torch

    from lib.metrics.scores import load_similarity

    source = shards.write_tar(tmp_path / "in" / "in-0.tar", shards.samples(2))
    score = {"kind": "similarity", "model": str(clip)}
    config = shards.config(
        tiny_checkpoint, source, tmp_path / "run",
        edit={"strengths": [0.2]}, output={"layout": "pairs"}, evaluate={"scores": {"own": score}},
    )  # fmt: skip
    folder, _ = shards.work(config, [source])
    source.unlink()
    run = Path(folder.root)
    section = {"scores": {"own": score, "clip": score}}
    done = evaluate(run, "--config", written(tmp_path / "e.yaml", section))
    assert done.returncode == 0, done.stderr
    assert "the run has measured own itself" in done.stdout
    scorer, expected = load_similarity(str(clip), torch.device("cpu")), []
    for row in rows_of(run).to_dicts():
        tar = run / "images" / row["image"]
        names = (row["member"].replace(".edited.", ".original."), row["member"])
        images = (torch.from_numpy(picture_in(tar, n).copy()).permute(2, 0, 1) for n in names)
        expected.append(float(scorer(*(image[None] / 127.5 - 1 for image in images))))
    figures = figures_of(run)
    for name in ("score_clip", "score_own"):
        assert figures["all", name]["value"] == pytest.approx(np.mean(expected), abs=1e-4)
    (measured,) = (run / "evaluation" / "rows").glob("*.parquet")
    assert "score_own" not in pl.read_parquet(measured).columns
