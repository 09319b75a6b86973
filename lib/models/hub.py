"""Checkpoints by hub id: fetched once a node into the Hugging Face cache, or found there.

Only configs, tokenizers and safetensors of the parts that are used are fetched, never code or
pickles. `HF_HUB_OFFLINE=1` looks into the cache alone; `HF_HOME`, `HF_TOKEN` and the other
variables of huggingface_hub hold.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lib.problems import ModelProblem

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PARTS = ("unet", "vae", "vqvae", "text_encoder")
_WANTED = (
    "model_index.json", "config.json", "scheduler_config.json", "scheduler/*.json", "tokenizer/*",
    "diffusion_pytorch_model*.safetensors", "diffusion_pytorch_model*.json",
    *(f"{part}/*.{kind}" for part in _PARTS for kind in ("json", "safetensors")),
)  # fmt: skip
_VARIANTS = ("*.fp16*", "*.bf16*", "*.non_ema*")


def is_hub_id(name: str) -> bool:
    """Whether `name` is written like one: owner/model."""
    return _HUB_ID.fullmatch(name) is not None and ".." not in name


def comes_from_hub(name: str) -> bool:
    """Whether a checkpoint of this name is looked for on the hub: no folder here has it."""
    return is_hub_id(name) and not Path(name).is_dir()


def fetched_folder(repo_id: str, revision: str | None) -> Path:
    """The folder of a model of the hub, fetched first where the cache does not hold it.

    Processes of one node wait for each other, so that each file is fetched once. Half precision
    is fetched only where there is nothing else.

    Raises:
        ModelProblem: there is no such model or revision, it needs a token, the hub cannot be
            reached, or the cache cannot be written.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return _snapshot(repo_id, revision, local_files_only=True)
    from filelock import FileLock

    locks = Path(constants.HF_HUB_CACHE) / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"deltah--{repo_id.replace('/', '--')}.lock"):
            return _snapshot(repo_id, revision)
    except PermissionError as error:
        raise ModelProblem(
            f"model.checkpoint: {repo_id} cannot be fetched into {constants.HF_HUB_CACHE}:"
            f" {error}; set HF_HOME to a folder that can be written, or HF_HUB_OFFLINE=1 where the"
            " model is already there"
        ) from error


def _snapshot(repo_id: str, revision: str | None, **options: Any) -> Path:
    folder = Path(_fetch(repo_id, revision, ignore_patterns=list(_VARIANTS), **options))
    if any(any(part.glob("*.safetensors")) for part in (folder, folder / "unet")):
        return folder
    return Path(_fetch(repo_id, revision, **options))


def _fetch(repo_id: str, revision: str | None, **options: Any) -> str:
    import huggingface_hub
    from huggingface_hub import constants, errors

    # Its base is the error of whichever HTTP client the library uses; the other one is OSError.
    unreachable: Any = (*errors.HfHubHTTPError.__bases__, errors.OfflineModeIsEnabled)
    at = f" at {revision}" if revision is not None else ""
    where = f"model.checkpoint: {repo_id} is no folder here, and"
    try:
        return str(
            huggingface_hub.snapshot_download(
                repo_id, revision=revision, allow_patterns=list(_WANTED), **options
            )
        )
    except errors.GatedRepoError as error:
        raise ModelProblem(
            f"{where} on the hub it is gated: accept its conditions at https://huggingface.co/"
            f"{repo_id} and set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelProblem(
            f"model.revision: {repo_id} has no revision {revision!r}; expected a branch, a tag or"
            " a commit of it"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelProblem(
            f"{where} the hub has no model of that name, or it is private: expected a folder in"
            " diffusers format or the id of a model; for a private one set HF_TOKEN"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if constants.HF_HUB_OFFLINE:
            raise ModelProblem(
                f"{where} while HF_HUB_OFFLINE is set only the cache is looked into:"
                f" {constants.HF_HUB_CACHE} does not hold the whole of it{at}; fetch it where there"
                " is a network, or give a folder"
            ) from error
        raise ModelProblem(
            f"{where} the hub cannot be reached, nor does the cache {constants.HF_HUB_CACHE} hold"
            f" the whole of it{at}; check the network, or give a folder"
        ) from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        wants_token = "; set HF_TOKEN to a token that may read it" if status in (401, 403) else ""
        raise ModelProblem(f"{where} the hub answered {status} for it{wants_token}") from error
    except errors.HFValidationError as error:
        raise ModelProblem(
            f"{where} {error}; expected a folder in diffusers format or a hub id"
        ) from error
    except unreachable as error:
        if isinstance(error, PermissionError):
            raise
        raise ModelProblem(
            f"{where} the hub cannot be reached: {' '.join(str(error).split()[:40])}; check the"
            " network, or give a folder"
        ) from error
