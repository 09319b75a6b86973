"""Hub ids without a network: a cache in the real layout, and the errors of huggingface_hub."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from lib.models.checkpoint import open_checkpoint, weights_sha256
from lib.models.hub import is_hub_id
from lib.problems import ModelProblem

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ID = "someone/tiny-faces"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of huggingface_hub in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HF_HUB_OFFLINE=1, which the library reads when it is imported."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def fill(cache: Path, model: Path, commit: str = COMMIT, ref: str = "main") -> Path:
    """`model` as the library would have stored it."""
    home = cache / f"models--{ID.replace('/', '--')}"
    (home / "refs").mkdir(parents=True, exist_ok=True)
    (home / "refs" / ref).write_text(commit)
    return Path(shutil.copytree(model, home / "snapshots" / commit))


@pytest.mark.usefixtures("offline")
def test_offline_a_model_in_the_cache_is_read_by_branch_and_by_commit(
    cache: Path, tiny_checkpoint: Path
) -> None:
    snapshot = fill(cache, tiny_checkpoint)
    for revision in (None, "main", COMMIT):
        found = open_checkpoint(ID, revision)
        assert found.folder == snapshot
        assert weights_sha256(found) == weights_sha256(open_checkpoint(str(tiny_checkpoint)))


@pytest.mark.usefixtures("offline", "cache")
def test_offline_a_model_that_is_not_in_the_cache_is_one_sentence() -> None:
    with pytest.raises(
        ModelProblem, match=rf"{ID} is no folder here, and while HF_HUB_OFFLINE is set"
    ):
        open_checkpoint(ID)


@pytest.mark.usefixtures("offline")
def test_offline_another_revision_than_the_cached_is_not_taken_for_it(
    cache: Path, tiny_checkpoint: Path
) -> None:
    fill(cache, tiny_checkpoint)
    with pytest.raises(ModelProblem, match=rf"{ID} .* does not hold the whole of it at v2"):
        open_checkpoint(ID, "v2")


@pytest.mark.usefixtures("offline")
def test_half_precision_is_enough_where_the_cache_has_nothing_else(
    cache: Path, tiny_checkpoint: Path
) -> None:
    unet = fill(cache, tiny_checkpoint) / "unet"
    name = "diffusion_pytorch_model"
    (unet / f"{name}.safetensors").rename(unet / f"{name}.fp16.safetensors")
    (weights,) = open_checkpoint(ID).unet.weights
    assert weights.name == f"{name}.fp16.safetensors"


@pytest.mark.usefixtures("offline")
def test_a_folder_wins_over_a_hub_id_and_has_no_revision(
    cache: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    fill(cache, tiny_checkpoint)
    shutil.copytree(tiny_checkpoint, tmp_path / ID)
    assert open_checkpoint(ID).folder == Path(ID)
    with pytest.raises(ModelProblem, match=r"model\.revision: someone/tiny-faces is a folder here"):
        open_checkpoint(ID, "main")


def test_online_only_what_is_used_is_fetched_and_under_a_lock(
    cache: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[dict[str, Any]] = []

    def download(repo_id: str, **options: Any) -> str:
        locks = list((cache / ".locks").glob("deltah--someone--tiny-faces.lock"))
        calls.append({"repo_id": repo_id, "locked": bool(locks)} | options)
        return str(tiny_checkpoint)

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert open_checkpoint(ID, "abc").folder == tiny_checkpoint
    (call,) = calls
    assert (call["repo_id"], call["revision"], call["locked"]) == (ID, "abc", True)
    files = [
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors", "v1-5-pruned.safetensors",
        "modeling.py", "vae/diffusion_pytorch_model.safetensors", "vae/model.py",
        "text_encoder/model.safetensors",
        "text_encoder/pytorch_model.bin", "tokenizer/vocab.json", "tokenizer/merges.txt",
        "scheduler/scheduler_config.json", "safety_checker/model.safetensors",
        "diffusion_pytorch_model.safetensors", "config.json",
    ]  # fmt: skip
    fetched = huggingface_hub.utils.filter_repo_objects(
        files, allow_patterns=call["allow_patterns"], ignore_patterns=call["ignore_patterns"]
    )
    assert set(fetched) == {
        "model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors",
        "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json",
        "diffusion_pytorch_model.safetensors", "config.json",
    }  # fmt: skip


def response(status: int) -> Any:
    """Of whichever HTTP client the library uses."""
    made = MagicMock()
    made.status_code = status
    made.headers = {}
    return made


ERRORS: list[tuple[Callable[[], Exception], str]] = [
    (lambda: errors.GatedRepoError("gated", response=response(403)), "gated: accept .* HF_TOKEN"),
    (
        lambda: errors.RepositoryNotFoundError("no", response=response(404)),
        "the hub has no model of that name, or it is private",
    ),
    (
        lambda: errors.RevisionNotFoundError("no", response=response(404)),
        r"model\.revision: someone/tiny-faces has no revision 'v2'",
    ),
    (
        lambda: errors.HfHubHTTPError("no", response=response(401)),
        "the hub answered 401 for it; set HF_TOKEN",
    ),
    (lambda: errors.HfHubHTTPError("no", response=response(500)), "the hub answered 500 for it$"),
    (
        lambda: errors.LocalEntryNotFoundError("no"),
        "the hub cannot be reached, nor does the cache .* hold the whole of it at v2",
    ),
    (lambda: errors.HfHubHTTPError.__bases__[0]("refused"), "the hub cannot be reached: refused"),
    (lambda: OSError("no route to host"), "the hub cannot be reached: no route to host"),
    (lambda: PermissionError("read-only"), "cannot be fetched into .* set HF_HOME"),
]


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("error", "sentence"), ERRORS)
def test_what_the_hub_refuses_is_one_sentence(
    error: Callable[[], Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(_repo_id: str, **_options: Any) -> str:
        raise error()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ModelProblem, match=sentence):
        open_checkpoint(ID, "v2")


def test_only_owner_and_model_is_a_hub_id() -> None:
    assert is_hub_id("google/ddpm-ema-celebahq-256")
    assert is_hub_id("CompVis/ldm-celebahq-256")
    for name in ("models/a/b", "/abs/path", "./here", "../up", "~/home", "plain", "a/", "a/../b"):
        assert not is_hub_id(name)
