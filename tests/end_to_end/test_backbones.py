"""Every backbone does the whole main job: shards in, edited shards and a manifest out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cluster.runner import run
from cluster.scheduling.orders import Rules
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.plan import make_plan

KINDS = (
    "pixel", "learned-variance", "v-prediction", "vq", "kl", "stable-diffusion",
    "stable-diffusion-2", "guided",
)  # fmt: skip
H_SHAPES = {"pixel": (32, 8, 8), "learned-variance": (32, 8, 8), "v-prediction": (32, 8, 8)}
PICTURES, STRENGTHS = 2, (-0.2, 0.2)


@pytest.fixture(params=KINDS)
def made(
    request: pytest.FixtureRequest,
    shards: ModuleType,
    backbones: ModuleType,
    backbone: Callable[[str], Path],
    tmp_path: Path,
) -> RunConfig:
    inputs = shards.write_shards(tmp_path / "in", 1, PICTURES)
    kind = str(request.param)
    checkpoint = (
        backbones.save_latent(tmp_path / "kl", "AutoencoderKL") if kind == "kl" else backbone(kind)
    )
    made: RunConfig = shards.config(
        checkpoint,
        inputs,
        tmp_path / "run",
        model=backbones.OPTIONS.get(kind, {}),
        edit={"strengths": list(STRENGTHS), "window": [900, 300], "batch_size": 4},
        segment={"regions": {"left": {"box": [0, 0, 0.5, 1]}, "eye": {"box": [0, 0, 0.1, 0.1]}}},
    )
    return made


def test_every_backbone_runs_the_main_job(
    made: RunConfig, shards: ModuleType, request: pytest.FixtureRequest
) -> None:
    outcome = run(made, console=Console(quiet=True), rules=Rules(workers=1))
    assert (outcome.exit_code, outcome.done) == (0, 1), outcome.sentence
    folder = Path(made.output.folder)
    assert verify(RunFolder(str(folder)), deep=True).problems == ()

    rows = [row for file in (folder / "manifest").glob("*.parquet") for row in read(file)]
    assert len(rows) == PICTURES * 2 * len(STRENGTHS)  # of two regions
    assert {row["region"] for row in rows} == {"left", "eye"}
    images = shards.images(folder)
    assert len(images) == len(rows)
    assert {image.shape for image in images.values()} == {(16, 16, 3)}
    assert len({image.tobytes() for image in images.values()}) == len(images)
    for row in rows:
        assert all(np.isfinite(v) for v in row.values() if isinstance(v, float))

    (directions,) = (read(file) for file in (folder / "directions").glob("*.parquet"))
    kind = request.node.callspec.params["made"]
    shape = H_SHAPES.get(kind, (32, 4, 4))
    assert len(directions) == PICTURES * 2
    assert {len(np.ravel(row["vector"])) for row in directions} == {int(np.prod(shape))}
    # No network had to be differentiated in another way than asked for.
    assert {json.loads(row["parameters"])["products"] for row in directions} == {"linearised"}

    inputs = expand_inputs(made.input.shards)
    assert {row["network_evaluations"] for row in rows} == {make_plan(made, inputs).evaluations}
    values = made.model_dump(mode="json")
    values["model"] |= {"negative_prompt": "", "guidance_scale": 1.0}
    unguided = make_plan(RunConfig.model_validate(values), inputs).evaluations
    planned = make_plan(made, inputs).evaluations
    assert planned == unguided * (2 if kind == "guided" else 1)
    assert {row["network_evaluations"] for row in rows} == {planned}


def read(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


@pytest.mark.parametrize("kind", ["vq", "stable-diffusion"])
def test_a_text_guides_a_model_of_latents(
    kind: str,
    shards: ModuleType,
    backbone: Callable[[str], Path],
    clip: Path,
    tmp_path: Path,
) -> None:
    inputs = shards.write_shards(tmp_path / "in", 1, PICTURES)
    text = {"method": "text", "model": str(clip), "source": "face", "target": "smile"}
    made = shards.config(backbone(kind), inputs, tmp_path / "run", discover=text | {"null_rank": 0})
    outcome = run(made, console=Console(quiet=True), rules=Rules(workers=1))
    assert (outcome.exit_code, outcome.done) == (0, 1), outcome.sentence
    (directions,) = (read(file) for file in (tmp_path / "run/directions").glob("*.parquet"))
    assert len(directions) == PICTURES
    assert all(row["singular_value"] > 0 for row in directions)
