"""The config that leaves this machine: whole, absolute, without secrets, refused early."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from cluster.submission.travelling_config import (
    config_text,
    drained_within,
    local_warning,
    travelling,
)
from lib.ledger.run_folder import RunConflict
from lib.problems import ConfigProblem, ModelProblem
from pipelines.config_file import load_config
from pipelines.presets import PRESETS

ON_RAY = "execution.engine=ray"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_reads_the_same_at_the_other_end(preset: str, tmp_path: Path) -> None:
    sent = travelling(load_config(preset, [ON_RAY]))
    (tmp_path / "sent.yaml").write_text(config_text(sent))
    assert load_config(str(tmp_path / "sent.yaml")) == sent


def test_paths_become_absolute_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ["input.shards=['in/{0..3}.tar', 's3://b/x.tar']", "output.folder=out"]
    sent = travelling(load_config("demo", [ON_RAY, *changes]))
    assert sent.input.shards == (f"{tmp_path}/in/{{0..3}}.tar", "s3://b/x.tar")
    assert sent.output.folder == f"{tmp_path}/out"
    warning = local_warning(sent)
    assert f"input.shards {tmp_path}/in/{{0..3}}.tar" in warning
    assert f"output.folder {tmp_path}/out" in warning
    assert "checkpoint" not in warning, "the embedded model travels with the code"


def test_object_stores_need_no_warning() -> None:
    stores = ["input.shards=[s3://b/x.tar]", "output.folder=s3://b/out"]
    assert local_warning(travelling(load_config("demo", [ON_RAY, *stores]))) == ""


@pytest.mark.parametrize(
    "url", ["s3://key:secret@b/x.tar", "https://host/x.tar?X-Amz-Signature=secret"]
)
def test_secrets_in_addresses_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigProblem, match=r"^input.shards: expected an address") as refused:
        travelling(load_config("demo", [ON_RAY, f"input.shards=['{url}']"]))
    assert "secret" not in str(refused.value)


def test_a_pattern_or_a_version_is_no_secret() -> None:
    shards = "input.shards=['s3://b/?.tar', 's3://b/x.tar?versionId=abc']"
    assert travelling(load_config("demo", [ON_RAY, shards]))


def test_what_this_machine_can_tell_is_refused_before_anything_is_sent(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 1, 1)
    fits = shards.config(tiny_checkpoint, pattern, tmp_path / "run", execution={"engine": "ray"})
    assert travelling(fits) == fits

    talks = fits.model.model_copy(update={"prompt": "a cat"})
    with pytest.raises(ConfigProblem, match="prompt"):
        travelling(fits.model_copy(update={"model": talks}))

    window = fits.edit.model_copy(update={"window": (2000, 1500)})
    with pytest.raises(ConfigProblem, match="window"):
        travelling(fits.model_copy(update={"edit": window}))

    shards.claimed(fits, {"in-0": str(tmp_path / "in" / "in-0.tar")})
    other = fits.edit.model_copy(update={"strengths": (0.5,)})
    with pytest.raises(RunConflict, match=r"edit\.strengths"):
        travelling(fits.model_copy(update={"edit": other}))

    (tmp_path / "empty").mkdir()
    empty = fits.model.model_copy(update={"checkpoint": str(tmp_path / "empty")})
    with pytest.raises(ModelProblem):
        travelling(fits.model_copy(update={"model": empty}))


def test_what_only_the_cluster_sees_is_left_to_it() -> None:
    """Neither the checkpoint nor the shards are on this machine, and no hub is asked."""
    changes = ["input.shards=['/cluster/in/*.tar']", "output.folder=/cluster/out"]
    assert travelling(load_config("celebahq-256", changes))
    assert travelling(load_config("demo", [ON_RAY, *changes, "model.checkpoint=/cluster/model"]))


@pytest.mark.parametrize(("patience_s", "own_s"), [(600, 585), (20, 10)])
def test_a_run_lets_go_of_its_shards_before_it_is_killed(patience_s: int, own_s: float) -> None:
    made = load_config("demo", [ON_RAY])
    assert drained_within(made, patience_s).execution.drain_timeout_s == own_s
    given = load_config("demo", [ON_RAY, "execution.drain_timeout_s=5"])
    assert drained_within(given, patience_s) == given


def test_a_gpu_that_ray_would_not_give_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="gpus_per_worker"):
        travelling(load_config("demo", [ON_RAY, "execution.device=cuda"]))
