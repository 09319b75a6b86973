"""What a config's section `model` means for plans, fingerprints and workers elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from huggingface_hub import constants

from lib.problems import ConfigProblem, ModelProblem
from pipelines.config import RunConfig
from pipelines.config_file import load_config
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.inputs import expand_inputs
from pipelines.located import located
from pipelines.plan import make_plan

Made = Callable[..., RunConfig]


@pytest.fixture
def made(shards: ModuleType, backbone: Callable[[str], Path], tmp_path: Path) -> Made:
    inputs = shards.write_shards(tmp_path / "in", 1, 1)

    def make(kind: str, **model: Any) -> RunConfig:
        config: RunConfig = shards.config(backbone(kind), inputs, tmp_path / "run", model=model)
        return config

    return make


def plan(config: RunConfig) -> None:
    make_plan(config, expand_inputs(config.input.shards))


def test_a_prompt_for_an_unconditional_model_is_refused_by_the_plan(made: Made) -> None:
    plan(made("vq"))
    with pytest.raises(ConfigProblem, match=r"model\.prompt: .* is an unconditional model"):
        plan(made("vq", prompt="a face"))
    with pytest.raises(ConfigProblem, match=r"model\.guidance_scale: .* is an unconditional model"):
        plan(made("pixel", guidance_scale=7.5))


def test_a_prompt_that_is_too_long_is_refused_by_the_plan(made: Made) -> None:
    plan(made("stable-diffusion", prompt="face " * 10))
    with pytest.raises(ConfigProblem, match=r"model\.prompt: expected at most 12 tokens"):
        plan(made("stable-diffusion", prompt="face " * 11))


def test_the_fingerprint_covers_prompt_and_guidance(made: Made) -> None:
    seen = [
        fingerprint_fields(made("stable-diffusion", **options))
        for options in (
            {},
            {"prompt": "face"},
            {"prompt": "face", "guidance_scale": 2.0},
            {"prompt": "face", "guidance_scale": 3.0},
            {"prompt": "face", "guidance_scale": 3.0, "negative_prompt": "smile"},
        )
    ]
    assert all(a != b for i, a in enumerate(seen) for b in seen[i + 1 :])


def test_a_model_of_the_hub_has_the_fingerprint_of_its_weights_at_any_revision(
    made: Made, backbone: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, commit = tmp_path / "hub/models--some--vq", "0123456789abcdef" * 2 + "01234567"
    (home / "refs").mkdir(parents=True)
    (home / "refs/main").write_text(commit)
    (home / "snapshots").mkdir()
    (home / "snapshots" / commit).symlink_to(backbone("vq"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    local = made("vq")
    for revision in (None, commit):
        named = {"checkpoint": "some/vq", "revision": revision}
        hub = local.model_copy(update={"model": local.model.model_copy(update=named)})
        assert fingerprint_fields(hub) == fingerprint_fields(local)
        plan(hub)


def test_a_hub_id_is_sent_to_workers_as_it_is_and_a_folder_by_its_whole_path(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/mine").mkdir(parents=True)
    for name, expected in (
        ("google/ddpm-celebahq-256", "google/ddpm-celebahq-256"),
        ("embedded", "embedded"),
        ("models/mine", str(tmp_path / "models/mine")),
        ("models/of/mine", str(tmp_path / "models/of/mine")),
    ):
        config = load_config("demo", [f"model.checkpoint={name}"])
        assert located(config).model.checkpoint == expected


@pytest.mark.parametrize(
    "preset", ["celebahq-256", "church-256", "bedroom-256", "ldm-celebahq", "stable-diffusion"]
)
def test_a_preset_whose_model_is_not_there_says_so(
    preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelProblem, match="while HF_HUB_OFFLINE is set only the cache"):
        plan(load_config(preset))


@pytest.mark.parametrize("scale", [0.0, 0.5, -1.0])
def test_guidance_below_one_is_no_guidance(scale: float) -> None:
    with pytest.raises(ConfigProblem, match=r"model\.guidance_scale"):
        load_config("demo", [f"model.guidance_scale={scale}"])
