"""Scores of images by a classifier, as labels for supervised directions: the embedded factor
regressor, or any image classifier that transformers can run.

Images go through the model's own processor, and the network runs in evaluation mode: Haas et
al.'s release left it in training mode, and its scores were unreliable.

Shape suffixes: B batch, C colours, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Protocol

import torch
from torch import Tensor

from lib.models.checkpoint import EMBEDDED
from lib.models.transformers_folder import (
    TransformersFolder,
    embedded_regressor_folder,
    open_classifier,
)
from lib.models.transformers_images import ImageProcessor, check_images
from lib.models.transformers_weights import load_weights
from lib.problems import ConfigProblem, ModelProblem


class Classifier(Protocol):
    """A frozen scorer of images."""

    names: tuple[str, ...]
    """Of the classes, in the order of the scores."""

    def scores(self, image_BCHW: Tensor) -> Tensor:
        """(B, K) float32 on the CPU, of RGB images float32 in [-1, 1]."""
        ...


def load_classifier(path: str, device: torch.device) -> Classifier:
    """`embedded` (the 16 factors of the demo faces) or a folder in transformers format.

    Scores are probabilities: a softmax over the classes, a sigmoid of each where config.json says
    multi_label_classification or has one class; raw outputs for a regression, as the embedded one.

    Raises:
        ModelProblem: the folder is incomplete, pickled, of no image classifier, or its weights do
            not fit its config or are not finite.
    """
    if path == EMBEDDED:
        return EmbeddedFactors(device)
    return TransformersClassifier(open_classifier(path), device)


def class_index(classifier: Classifier, name: str) -> int:
    """The column of class `name` in the scores.

    Raises:
        ConfigProblem: no class, or more than one, has the name.
    """
    count = classifier.names.count(name)
    if count == 1:
        return classifier.names.index(name)
    if count:
        raise ConfigProblem(f"classifier: {count} classes are called {name!r}; expected one")
    nearest = get_close_matches(name, classifier.names, n=1, cutoff=0.0)
    raise ConfigProblem(
        f"classifier: no class is called {name!r}; the nearest is"
        f" {nearest[0] if nearest else classifier.names[0]!r} (of {len(classifier.names)})"
    )


class EmbeddedFactors:
    """The regressor of the demo faces' factors; images must be 64x64."""

    def __init__(self, device: torch.device) -> None:
        from lib.demo import regressor
        from lib.demo.faces import FACTORS

        self._model = regressor.load(embedded_regressor_folder()).to(device)
        self._device = device
        self.names: tuple[str, ...] = tuple(FACTORS)

    @torch.no_grad()
    def scores(self, image_BCHW: Tensor) -> Tensor:
        """factors_BK, not clipped; raises ValueError for images of another size."""
        check_images(image_BCHW)
        scores_BK: Tensor = self._model(image_BCHW.to(self._device))
        return _finite(scores_BK)


class TransformersClassifier:
    """`AutoModelForImageClassification` with the processor that belongs to it."""

    def __init__(self, found: TransformersFolder, device: torch.device) -> None:
        from transformers import AutoModelForImageClassification

        self._processor = ImageProcessor(found)
        model = load_weights(AutoModelForImageClassification, found, "an image classifier")
        self._model = model.to(device)
        self._device = device
        config = self._model.config
        labels = {int(k): str(v) for k, v in config.id2label.items()}
        self.names: tuple[str, ...] = tuple(labels[k] for k in sorted(labels))
        self._activation = _activation(config.problem_type, len(self.names))

    @torch.no_grad()
    def scores(self, image_BCHW: Tensor) -> Tensor:
        """probabilities_BK; raises ValueError unless images are finite RGB batches."""
        pixels_BCHW = self._processor(image_BCHW).to(self._device)
        logits_BK: Tensor = self._model(pixel_values=pixels_BCHW).logits
        return _finite(self._activation(logits_BK.float()))


def _activation(problem_type: str | None, classes: int) -> Callable[[Tensor], Tensor]:
    if problem_type == "regression":
        return lambda logits_BK: logits_BK
    if problem_type == "multi_label_classification" or classes == 1:
        return torch.sigmoid
    return lambda logits_BK: logits_BK.softmax(dim=1)


def _finite(scores_BK: Tensor) -> Tensor:
    if not bool(torch.isfinite(scores_BK).all()):
        rows = (~torch.isfinite(scores_BK).all(dim=1)).nonzero().flatten().tolist()
        raise ModelProblem(f"classifier: expected finite scores, got NaN or infinity for {rows}")
    return scores_BK.cpu()
