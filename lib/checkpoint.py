"""A diffusers checkpoint on disk: where its files lie, what they declare, and the hash of its
weights.

No torch here, so that `plan` can check a checkpoint and the fingerprint can name its weights in a
light process. Weights are safetensors only: a pickle is refused, never opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.problems import ModelProblem

EMBEDDED = "embedded"
_WEIGHTS = "diffusion_pytorch_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are all there; nothing of the weights has been read."""

    folder: Path
    unet_config: Mapping[str, Any]
    scheduler_config: Mapping[str, Any]
    weights: Path

    @property
    def image_size(self) -> int:
        """Side of the square images that the network takes, pixels."""
        return int(self.unet_config["sample_size"])

    @property
    def num_train_timesteps(self) -> int:
        """Length of the training schedule."""
        return int(self.scheduler_config.get("num_train_timesteps", 1000))


def embedded_folder() -> Path:
    """Where the face model of this repository lies."""
    return Path(__file__).parent / "demo" / "model"


def open_checkpoint(name: str) -> Checkpoint:
    """Find the parts of checkpoint `name` (a folder, or `embedded`).

    Both layouts of the hub are read: `unet/` and `scheduler/` folders, or everything at the top.

    Raises:
        ModelProblem: a part is missing, is pickled, or declares what cannot be run.
    """
    folder = embedded_folder() if name == EMBEDDED else Path(name).expanduser()
    if not folder.is_dir():
        raise ModelProblem(
            f"model.checkpoint: expected a folder in diffusers format (or `{EMBEDDED}`),"
            f" but {name} is no folder"
        )
    unet = _part(folder, "unet", "config.json")
    scheduler = _part(folder, "scheduler", "scheduler_config.json")
    config = _read_json(unet / "config.json")
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        raise ModelProblem(f"{unet / 'config.json'}: expected a UNet2DModel, got {kind!r}")
    if not isinstance(config.get("sample_size"), int):
        raise ModelProblem(
            f"{unet / 'config.json'}: expected sample_size to be one integer (square images),"
            f" got {config.get('sample_size')!r}"
        )
    return Checkpoint(
        folder, config, _read_json(scheduler / "scheduler_config.json"), _weights_file(unet)
    )


def weights_sha256(checkpoint: Checkpoint) -> str:
    """SHA-256 of the weights file with the two configs: two checkpoints with one hash compute the
    same.
    """
    digest = hashlib.sha256()
    for config in (checkpoint.unet_config, checkpoint.scheduler_config):
        public = {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}
        digest.update(json.dumps(public, sort_keys=True).encode())
    with checkpoint.weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _part(folder: Path, name: str, config_name: str) -> Path:
    for place in (folder / name, folder):
        if (place / config_name).is_file():
            return place
    raise ModelProblem(
        f"model.checkpoint: expected {name}/{config_name} or {config_name} in {folder},"
        " found neither"
    )


def _weights_file(unet: Path) -> Path:
    weights = unet / _WEIGHTS
    if weights.is_file():
        return weights
    pickles = sorted(p.name for pattern in _PICKLES for p in unet.glob(pattern))
    if pickles:
        raise ModelProblem(
            f"{unet}: expected {_WEIGHTS}, found only pickled weights ({', '.join(pickles)}), which"
            " are never opened because a pickle can run code; convert them where you trust them:"
            " UNet2DModel.from_pretrained(folder).save_pretrained(folder, safe_serialization=True)"
        )
    raise ModelProblem(f"{unet}: expected {_WEIGHTS}, but the folder holds no weights")


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelProblem(f"{path}: expected a JSON object, got: {error}") from error
    if not isinstance(content, dict):
        raise ModelProblem(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
