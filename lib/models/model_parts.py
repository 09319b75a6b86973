"""One network of a checkpoint on disk: its folder, what its config declares, its weights' files and
the hash of all that changes what it computes.

No torch here. Class names come from each part's own config.json; code that a checkpoint brings is
never run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.models.safetensor_files import read_json, weights_files
from lib.problems import ModelProblem

_STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
_OWN_MODULES = ("diffusers", "transformers")


@dataclass(frozen=True, slots=True)
class Part:
    """A network whose files are all there and whole; nothing of the weights has been read."""

    folder: Path
    class_name: str
    config: Mapping[str, Any]
    """config.json as it is on disk, without the defaults of the class."""
    weights: tuple[Path, ...]

    def number(self, key: str, default: int) -> int:
        """An integer of the config, or the default of the class.

        Raises:
            ModelProblem: it is something else.
        """
        value = self.config.get(key, default)
        if not isinstance(value, int):
            raise ModelProblem(
                f"{self.folder / 'config.json'}: expected {key} to be an integer, got {value!r}"
            )
        return value

    @property
    def levels(self) -> int:
        """How many resolutions the network has."""
        channels = self.config.get("block_out_channels", (64,))
        if not isinstance(channels, list | tuple) or not channels:
            raise ModelProblem(
                f"{self.folder / 'config.json'}: expected block_out_channels to be a list of"
                f" integers, got {channels!r}"
            )
        return len(channels)


def open_part(folder: Path, names: Sequence[str], classes: Sequence[str], library: str) -> Part:
    """The part of the checkpoint `folder` that lies in the first of the subfolders `names`, or,
    for the empty name, at the top; of one of `classes` of `library` (diffusers, transformers).

    Raises:
        ModelProblem: it is not there, is of another class, brings code of its own, or its weights
            are missing, pickled or truncated.
    """
    place = find_part(folder, names, "config.json")
    if place is None:
        where = " or ".join(f"{name}/config.json" if name else "config.json" for name in names)
        raise ModelProblem(f"model.checkpoint: expected {where} in {folder}, found none")
    config = read_json(place / "config.json")
    refuse_code(config, place / "config.json")
    declared = config.get("_class_name")
    if library == "transformers":
        declared = _architecture(config)
    if declared not in classes:
        raise ModelProblem(
            f"{place / 'config.json'}: expected a {' or a '.join(classes)}, got {declared!r}"
        )
    convert = (
        f"{'CLIPTextModel' if library == 'transformers' else declared}"
        ".from_pretrained(folder).save_pretrained(folder, safe_serialization=True)"
    )
    return Part(place, str(declared), config, weights_files(place, _STEMS[library], convert))


def find_part(folder: Path, names: Sequence[str], file: str) -> Path | None:
    """The first of the subfolders that holds `file`."""
    return next((folder / name for name in names if (folder / name / file).is_file()), None)


def refuse_code(config: Mapping[str, Any], where: Path) -> None:
    """Raises ModelProblem where a config asks for code of its own."""
    if "auto_map" in config or isinstance(config.get("_class_name"), list):
        raise ModelProblem(
            f"{where}: the model brings code of its own, which is never run; expected a class of"
            " diffusers or transformers"
        )


def refuse_foreign_modules(folder: Path, names: Sequence[str]) -> None:
    """Read model_index.json, where there is one; raises ModelProblem where it takes one of the
    parts `names` from the checkpoint's own code.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        return
    entries = read_json(index)
    refuse_code(entries, index)
    for name in names:
        entry = entries.get(name)
        module = entry[0] if isinstance(entry, list) and entry else None
        if module is not None and module not in _OWN_MODULES:
            raise ModelProblem(
                f"{index}: {name} is {entry}: code of the checkpoint's own ({module}), which is"
                " never run; expected a class of diffusers or transformers"
            )


def config_digest(config: Mapping[str, Any], noise: Sequence[str] = ()) -> bytes:
    """A config as bytes to hash, without what changes no answer: versions, names of origin, and
    the keys of `noise`.
    """
    public = {
        key: value
        for key, value in config.items()
        if (not key.startswith("_") or key == "_class_name") and key not in noise
    }
    return json.dumps(public, sort_keys=True).encode()


def _architecture(config: Mapping[str, Any]) -> str | None:
    """What a transformers config says its class is."""
    names = config.get("architectures")
    if isinstance(names, list) and names:
        return str(names[0])
    return "CLIPTextModel" if config.get("model_type") == "clip_text_model" else None


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
