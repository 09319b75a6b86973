"""A diffusers checkpoint on disk: where its files lie, what they declare, and the hash of all that
it computes with.

No torch here, so that `plan` can check a checkpoint and the fingerprint can name its weights in a
light process. Weights are safetensors only: a pickle is refused, never opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.models.architecture import check_scheduler, check_unet
from lib.models.hub import fetched_folder, is_hub_id
from lib.models.model_parts import (
    Part,
    config_digest,
    file_digest,
    find_part,
    open_part,
    refuse_foreign_modules,
)  # fmt: skip
from lib.models.safetensor_files import read_json
from lib.problems import ModelProblem

EMBEDDED = "embedded"
_UNETS = ("UNet2DModel", "UNet2DConditionModel")
_AUTOENCODERS = ("VQModel", "AutoencoderKL")
_AUTOENCODER_FOLDERS = ("vae", "vqvae")
_TOKENIZER = (
    "added_tokens.json", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer_config.json", "vocab.json",
)  # fmt: skip
_NOISE = ("transformers_version", "torch_dtype", "dtype")
"""Keys of a text encoder's config that change no answer: everything is computed in float32."""
_SINGLE_FILES = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")
_CONVERT = (
    "Convert it where you trust it: StableDiffusionPipeline.from_single_file(file)"
    ".save_pretrained(folder, safe_serialization=True), or diffusers' script"
    " convert_ldm_original_checkpoint_to_diffusers.py for an unconditional model"
)


@dataclass(frozen=True, slots=True)
class Text:
    """What turns a prompt into the embedding that a U-Net is conditioned on."""

    encoder: Part
    tokenizer: Path
    """Its folder."""
    files: tuple[Path, ...]
    """Of the tokenizer, sorted by name."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose files are all there; nothing of the weights has been read."""

    folder: Path
    unet: Part
    scheduler_config: Mapping[str, Any]
    autoencoder: Part | None
    """None: the U-Net works on pixels."""
    text: Text | None
    """None: the U-Net is unconditional."""

    @property
    def kind(self) -> str:
        """pixel, latent or text."""
        if self.text is not None:
            return "text"
        return "pixel" if self.autoencoder is None else "latent"

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the U-Net works on."""
        default = 4 if self.unet.class_name == "UNet2DConditionModel" else 3
        size = self.unet.number("sample_size", 0)
        return self.unet.number("in_channels", default), size, size

    @property
    def image_size(self) -> int:
        """Side of the square images, pixels."""
        factor = 1 if self.autoencoder is None else 2 ** (self.autoencoder.levels - 1)
        return self.latent_shape[1] * factor

    @property
    def num_train_timesteps(self) -> int:
        """Length of the training schedule."""
        return int(self.scheduler_config.get("num_train_timesteps", 1000))


def embedded_folder() -> Path:
    """Where the face model of this repository lies."""
    return Path(__file__).parents[1] / "demo" / "model"


def open_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find the parts of checkpoint `name`: a folder, `embedded`, or a hub id at a `revision`.

    A folder of that name wins over a hub id. Both layouts of the hub are read: `unet/` and
    `scheduler/` folders, or everything at the top. A U-Net alone works on pixels; with `vae/` or
    `vqvae/` on latents; a `UNet2DConditionModel` needs `text_encoder/` and `tokenizer/` as well.

    Raises:
        ModelProblem: a part is missing, is pickled or truncated, or declares what cannot be run;
            the hub has no such model or cannot be reached.
    """
    folder = _folder(name, revision)
    refuse_foreign_modules(
        folder, ("unet", *_AUTOENCODER_FOLDERS, "scheduler", "text_encoder", "tokenizer")
    )
    _refuse_single_files(folder)
    unet = _squared(open_part(folder, ("unet", ""), _UNETS, "diffusers"))
    place = find_part(folder, ("scheduler", ""), "scheduler_config.json")
    if place is None:
        raise ModelProblem(
            "model.checkpoint: expected scheduler/scheduler_config.json or scheduler_config.json"
            f" in {folder}, found neither; it declares the noise levels that the U-Net was trained"
            " on"
        )
    scheduler = read_json(place / "scheduler_config.json")
    check_scheduler(scheduler, place / "scheduler_config.json")
    conditional = unet.class_name == "UNet2DConditionModel"
    autoencoder = None
    if conditional or find_part(folder, _AUTOENCODER_FOLDERS, "config.json") is not None:
        autoencoder = open_part(folder, _AUTOENCODER_FOLDERS, _AUTOENCODERS, "diffusers")
    check_unet(unet, 3 if autoencoder is None else _latent_channels(autoencoder), scheduler)
    text = _open_text(folder, unet) if conditional else None
    return Checkpoint(folder, unet, scheduler, autoencoder, text)


def weights_sha256(checkpoint: Checkpoint) -> str:
    """SHA-256 of the weights of every part with their configs (and of the tokenizer): two
    checkpoints with one hash compute the same.
    """
    digest = hashlib.sha256()
    digest.update(config_digest(checkpoint.unet.config))
    digest.update(config_digest(checkpoint.scheduler_config))
    for file in checkpoint.unet.weights:
        digest.update(file_digest(file))
    others = [checkpoint.autoencoder] if checkpoint.autoencoder is not None else []
    others += [checkpoint.text.encoder] if checkpoint.text is not None else []
    for part in others:
        digest.update(b"\0" + part.class_name.encode() + config_digest(part.config, _NOISE))
        for file in part.weights:
            digest.update(file_digest(file))
    for file in checkpoint.text.files if checkpoint.text is not None else ():
        digest.update(b"\0" + file.name.encode() + file_digest(file))
    return digest.hexdigest()


def _folder(name: str, revision: str | None) -> Path:
    folder = embedded_folder() if name == EMBEDDED else Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelProblem(
                f"model.revision: {name} is a folder here, which has no revisions; expected none"
            )
        return folder
    if folder.suffix in _SINGLE_FILES and (folder.is_file() or not is_hub_id(name)):
        raise ModelProblem(
            f"model.checkpoint: {name} names a single file; expected a folder in diffusers"
            f" format. {_CONVERT}"
        )
    if not is_hub_id(name):
        raise ModelProblem(
            f"model.checkpoint: expected a folder in diffusers format, a hub id such as"
            f" google/ddpm-celebahq-256, or `{EMBEDDED}`, but {name} is no folder"
        )
    return fetched_folder(name, revision)


def _refuse_single_files(folder: Path) -> None:
    """Say what to do where somebody's folder holds a whole model in one file."""
    singles = sorted(p.name for p in folder.iterdir() if p.suffix in _SINGLE_FILES)
    if singles and find_part(folder, ("unet", ""), "config.json") is None:
        raise ModelProblem(
            f"model.checkpoint: expected unet/config.json or config.json in {folder}, found only"
            f" {', '.join(singles[:3])}. {_CONVERT}"
        )


def _squared(unet: Part) -> Part:
    """The U-Net with one number for its side."""
    size = unet.config.get("sample_size")
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if not isinstance(size, int):
        raise ModelProblem(
            f"{unet.folder / 'config.json'}: expected sample_size to be one integer (square"
            f" images), got {size!r}"
        )
    return Part(unet.folder, unet.class_name, {**unet.config, "sample_size": size}, unet.weights)


def _latent_channels(autoencoder: Part) -> int:
    if autoencoder.class_name == "VQModel" and autoencoder.config.get("vq_embed_dim") is not None:
        return autoencoder.number("vq_embed_dim", 0)
    return autoencoder.number("latent_channels", 4 if autoencoder.class_name != "VQModel" else 3)


def _open_text(folder: Path, unet: Part) -> Text:
    encoder = open_part(folder, ("text_encoder",), ("CLIPTextModel",), "transformers")
    tokenizer = folder / "tokenizer"
    files = tuple(tokenizer / name for name in _TOKENIZER if (tokenizer / name).is_file())
    if not {"tokenizer.json", "vocab.json"} & {file.name for file in files}:
        raise ModelProblem(
            f"{tokenizer}: expected tokenizer.json, or vocab.json and merges.txt, found neither"
        )
    width, expected = encoder.number("hidden_size", 512), unet.config.get("cross_attention_dim")
    if expected != width:
        raise ModelProblem(
            f"{unet.folder / 'config.json'}: cross_attention_dim is {expected!r}, but the text"
            f" encoder gives {width} numbers a token; expected the same"
        )
    return Text(encoder, tokenizer, files)
