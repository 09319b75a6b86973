"""A transformers model on disk (a classifier, a text-image model): where its files lie and the hash
of all that changes its answers.

No torch here, so that `plan` can check a model and the fingerprint can name it in a light process.
Weights are safetensors only: a pickle is refused, never opened. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.checkpoint import EMBEDDED, embedded_folder
from lib.fingerprint import canonical_json
from lib.problems import ModelProblem

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.json")
_SUPPORTING = (
    *_PREPROCESSING, *_TOKENIZER, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_CONFIG_NOISE = ("transformers_version", "_name_or_path", "torch_dtype", "dtype")
"""Keys of config.json that change no answer: everything is computed in float32."""


@dataclass(frozen=True, slots=True)
class TransformersFolder:
    """A model whose files are all there; nothing of the weights has been read."""

    folder: Path
    config: Mapping[str, Any]
    weights: tuple[Path, ...]
    """One file, or the shards that the index names, sorted."""
    supporting: tuple[Path, ...]
    """Preprocessing and tokenizer files that are there, sorted by name."""


def open_classifier(path: str) -> TransformersFolder:
    """The files of an image classifier: config, safetensors weights, preprocessor_config.json.

    Raises:
        ModelProblem: no folder, a part is missing, the weights are pickled only, or the config
            asks for code of its own.
    """
    found = _open(path, "classifier")
    _expect_one_of(found.folder, _PREPROCESSING, "without which images cannot be scaled as trained")
    return found


def open_text_image(path: str) -> TransformersFolder:
    """The files of a CLIP model: config, safetensors weights and tokenizer.

    Raises:
        ModelProblem: as `open_classifier`, or it is no CLIP model.
    """
    found = _open(path, "text-image model")
    if found.config.get("model_type") != "clip":
        raise ModelProblem(
            f"{found.folder / 'config.json'}: expected model_type 'clip', got"
            f" {found.config.get('model_type')!r}; other text-image models are not supported"
        )
    _expect_one_of(found.folder, _TOKENIZER, "without which texts cannot be read")
    return found


def classifier_sha256(path: str) -> str:
    """SHA-256 of what decides a classifier's scores (`embedded`, or a folder), for fingerprints."""
    if path != EMBEDDED:
        return _sha256(open_classifier(path))
    folder = embedded_regressor_folder()
    config = _read_json(folder / "config.json")
    return _sha256(TransformersFolder(folder, config, (folder / _WEIGHTS,), ()))


def text_image_sha256(path: str) -> str:
    """The same for a text-image model: weights, config, tokenizer and preprocessing."""
    return _sha256(open_text_image(path))


def embedded_regressor_folder() -> Path:
    """Where the factor regressor of this repository lies."""
    return embedded_folder() / "regressor"


def _open(path: str, what: str) -> TransformersFolder:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelProblem(
            f"{what}: expected a folder in transformers format, but {path} is no folder; models are"
            " not downloaded here"
        )
    if not (folder / "config.json").is_file():
        raise ModelProblem(f"{what}: expected config.json in {folder}, found none")
    config = _read_json(folder / "config.json")
    if "auto_map" in config:
        raise ModelProblem(
            f"{folder / 'config.json'}: the model brings code of its own (`auto_map`), which is"
            " never run; expected an architecture that transformers has"
        )
    supporting = tuple(sorted(folder / n for n in _SUPPORTING if (folder / n).is_file()))
    return TransformersFolder(folder, config, _weights_files(folder), supporting)


def _weights_files(folder: Path) -> tuple[Path, ...]:
    if (folder / _WEIGHTS).is_file():
        return (folder / _WEIGHTS,)
    if (folder / _INDEX).is_file():
        index = _read_json(folder / _INDEX).get("weight_map")
        if not isinstance(index, dict) or not index:
            raise ModelProblem(f"{folder / _INDEX}: expected a weight_map of tensors to files")
        names = sorted({str(name) for name in index.values()})
        outside = [name for name in names if Path(name).name != name]
        missing = [name for name in names if not (folder / name).is_file()]
        if outside or missing:
            raise ModelProblem(
                f"{folder / _INDEX}: expected the files it names in the same folder, not found:"
                f" {', '.join(outside or missing)}"
            )
        return tuple(folder / name for name in names)
    pickles = sorted({p.name for pattern in _PICKLES for p in folder.glob(pattern)})
    if pickles:
        raise ModelProblem(
            f"{folder}: expected {_WEIGHTS}, found only {', '.join(pickles)}, which are never"
            " opened because a pickle can run code; convert them where you trust them:"
            " AutoModel….from_pretrained(folder).save_pretrained(folder)"
        )
    raise ModelProblem(f"{folder}: expected {_WEIGHTS}, but the folder holds no weights")


def _expect_one_of(folder: Path, names: tuple[str, ...], reason: str) -> None:
    if not any((folder / name).is_file() for name in names):
        raise ModelProblem(f"{folder}: expected {' or '.join(names)}, {reason}; found none")


def _sha256(found: TransformersFolder) -> str:
    config = {k: v for k, v in found.config.items() if k not in _CONFIG_NOISE}
    digest = hashlib.sha256(canonical_json(config).encode())
    for path in (*found.weights, *found.supporting):
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelProblem(f"{path}: expected a JSON object, got: {error}") from error
    if not isinstance(content, dict):
        raise ModelProblem(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content
