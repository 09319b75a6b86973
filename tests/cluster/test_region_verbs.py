"""`deltah regions name`, from its arguments to the file beside the model."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cluster.verbs.regions import app
from lib.masks.cluster_files import RegionModel, RegionStudy, encode_model
from lib.problems import ConfigProblem

STUDY = RegionStudy("m", (120,), (1,), (2,), (1.0,), 4, 16)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    model = RegionModel(STUDY, 9, 0.1, *(np.zeros(s, np.float32) for s in ((4, 2), 1, 4)))
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/regions.safetensors").write_bytes(encode_model(model))
    return tmp_path


def test_names_are_given_and_said_back(run: Path) -> None:
    result = CliRunner().invoke(app, ["name", str(run), "0,2=hair", "3=the skin"])
    assert result.exit_code == 0
    assert result.output == "hair: 0, 2\nthe skin: 3\nwithout a name: 1\n"
    kept = json.loads((run / "merged/regions.names.json").read_text())
    assert kept["names"] == {"0": "hair", "2": "hair", "3": "the skin"}


@pytest.mark.parametrize("text", ["hair", "hair=0", "=hair", "0=7", "0;2=hair"])
def test_what_is_no_name_is_a_usage_mistake(run: Path, text: str) -> None:
    result = CliRunner().invoke(app, ["name", str(run), text])
    assert result.exit_code == 2
    assert "expected NUMBERS=NAME" in result.output
    assert not (run / "merged/regions.names.json").exists()


def test_a_region_that_is_not_there_is_refused(run: Path) -> None:
    result = CliRunner().invoke(app, ["name", str(run), "4=hair"])
    assert isinstance(result.exception, ConfigProblem)
