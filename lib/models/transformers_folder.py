"""A transformers model on disk (a classifier, a text-image model): where its files lie and the hash
of all that changes its answers.

No torch here, so that `plan` can check a model and the fingerprint can name it in a light process.
Weights are safetensors only: a pickle is refused, never opened. Nothing is fetched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from lib.fingerprint import canonical_json
from lib.models.checkpoint import EMBEDDED, embedded_folder
from lib.models.safetensor_files import read_json, weights_files
from lib.problems import ConfigProblem, ModelProblem

Answer = Literal["regression", "multi_label", "single_label"]
"""What a classifier's outputs mean: numbers as they are, a sigmoid of each, a softmax over all."""

_WEIGHTS = "model.safetensors"
_CONVERT = "AutoModel….from_pretrained(folder).save_pretrained(folder)"
_PREPROCESSING = ("preprocessor_config.json", "processor_config.json")
_TOKENIZER = ("tokenizer.json", "vocab.json")
_SUPPORTING = (
    *_PREPROCESSING, *_TOKENIZER, "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
_UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers calls the outputs where config.json names none."""
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
    return _open_seeing(path, "classifier")


def open_image_encoder(path: str) -> TransformersFolder:
    """The files of a model that turns images to embeddings; the same files as of a classifier.

    Raises:
        ModelProblem: as `open_classifier`.
    """
    return _open_seeing(path, "image encoder")


def open_segmenter(path: str) -> TransformersFolder:
    """The files of a semantic-segmentation network; the same files as of a classifier.

    Raises:
        ModelProblem: as `open_classifier`.
    """
    return _open_seeing(path, "semantic segmenter")


def open_mask_generator(path: str) -> TransformersFolder:
    """The files of a SAM model; the same files as of a classifier.

    Raises:
        ModelProblem: as `open_classifier`, or it is no SAM model of the first generation.
    """
    found = _open_seeing(path, "mask generator")
    if found.config.get("model_type") != "sam":
        raise ModelProblem(
            f"{found.folder / 'config.json'}: expected model_type 'sam', got"
            f" {found.config.get('model_type')!r}; other mask generators are not supported"
        )
    return found


def class_names(found: TransformersFolder) -> dict[int, str]:
    """Number -> name of the classes of a classifier or segmenter, from its config.json."""
    named = found.config.get("id2label")
    if isinstance(named, Mapping):
        return {int(number): str(named[number]) for number in sorted(named, key=int)}
    return {number: f"LABEL_{number}" for number in range(int(found.config.get("num_labels", 2)))}


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
    config = read_json(folder / "config.json")
    return _sha256(TransformersFolder(folder, config, (folder / _WEIGHTS,), ()))


def classifier_names(path: str) -> tuple[str, ...]:
    """Of a classifier's outputs (`embedded`, or a folder), in their order.

    Raises:
        ModelProblem: as `open_classifier`.
    """
    if path == EMBEDDED:
        return tuple(read_json(embedded_regressor_folder() / "config.json")["factors"])
    labels = open_classifier(path).config.get("id2label") or _UNNAMED
    return tuple(str(labels[key]) for key in sorted(labels, key=int))


def classifier_answer(path: str) -> Answer:
    """What a classifier's outputs mean (`embedded`, or a folder), by its config.json.

    Raises:
        ModelProblem: as `open_classifier`.
    """
    if path == EMBEDDED:
        return "regression"
    stated = open_classifier(path).config.get("problem_type")
    return answer_of(stated, len(classifier_names(path)))


def answer_of(problem_type: object, outputs: int) -> Answer:
    """What so many outputs of a transformers classifier mean, by the `problem_type` it states."""
    if problem_type == "regression":
        return "regression"
    if problem_type == "multi_label_classification" or outputs == 1:
        return "multi_label"
    return "single_label"


def name_index(names: Sequence[str], name: str) -> int:
    """Which of a classifier's outputs is called `name`.

    Raises:
        ConfigProblem: none, or more than one, has the name.
    """
    count = names.count(name)
    if count == 1:
        return names.index(name)
    if count:
        raise ConfigProblem(f"classifier: {count} classes are called {name!r}; expected one")
    nearest = get_close_matches(name, names, n=1, cutoff=0.0)
    raise ConfigProblem(
        f"classifier: no class is called {name!r}; the nearest is"
        f" {nearest[0] if nearest else names[0]!r} (of {len(names)})"
    )


def image_encoder_sha256(path: str) -> str:
    """The same for an image encoder (`embedded`, or a folder)."""
    return classifier_sha256(path) if path == EMBEDDED else _sha256(open_image_encoder(path))


def segmenter_sha256(path: str) -> str:
    """The same for a semantic segmenter."""
    return _sha256(open_segmenter(path))


def mask_generator_sha256(path: str) -> str:
    """The same for a mask generator."""
    return _sha256(open_mask_generator(path))


def text_image_sha256(path: str) -> str:
    """The same for a text-image model: weights, config, tokenizer and preprocessing."""
    return _sha256(open_text_image(path))


def embedded_regressor_folder() -> Path:
    """Where the factor regressor of this repository lies."""
    return embedded_folder() / "regressor"


def _open_seeing(path: str, what: str) -> TransformersFolder:
    """A model that takes images, with what says how they are scaled."""
    found = _open(path, what)
    _expect_one_of(found.folder, _PREPROCESSING, "without which images cannot be scaled as trained")
    return found


def _open(path: str, what: str) -> TransformersFolder:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise ModelProblem(
            f"{what}: expected a folder in transformers format, but {path} is no folder; models are"
            " not downloaded here"
        )
    if not (folder / "config.json").is_file():
        raise ModelProblem(f"{what}: expected config.json in {folder}, found none")
    config = read_json(folder / "config.json")
    if "auto_map" in config:
        raise ModelProblem(
            f"{folder / 'config.json'}: the model brings code of its own (`auto_map`), which is"
            " never run; expected an architecture that transformers has"
        )
    supporting = tuple(sorted(folder / n for n in _SUPPORTING if (folder / n).is_file()))
    return TransformersFolder(folder, config, weights_files(folder, "model", _CONVERT), supporting)


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
