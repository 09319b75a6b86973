"""Scores of images by a classifier, as labels for supervised directions: the embedded factor
regressor, or any image classifier that transformers can run.

Images go through the model's own processor, and the network runs in evaluation mode: Haas et
al.'s release left it in training mode, and its scores were unreliable.

Shape suffixes: B batch, C colours, H rows, W columns, K classes.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from lib.models.checkpoint import EMBEDDED
from lib.models.classifier_network import embedded_network, scores_of, transformers_network
from lib.models.transformers_folder import TransformersFolder, name_index, open_classifier
from lib.models.transformers_images import ImageProcessor, check_images
from lib.problems import ModelProblem


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
    return name_index(classifier.names, name)


class EmbeddedFactors:
    """The regressor of the demo faces' factors; images must be 64x64."""

    def __init__(self, device: torch.device) -> None:
        self._network = embedded_network(device)
        self.names = self._network.names

    @torch.no_grad()
    def scores(self, image_BCHW: Tensor) -> Tensor:
        """factors_BK, not clipped; raises ValueError for images of another size."""
        check_images(image_BCHW)
        return _finite(self._network.outputs(image_BCHW.to(self._network.like.device)))


class TransformersClassifier:
    """`AutoModelForImageClassification` with the processor that belongs to it."""

    def __init__(self, found: TransformersFolder, device: torch.device) -> None:
        self._processor = ImageProcessor(found)
        self._network = transformers_network(found, device)
        self.names = self._network.names

    @torch.no_grad()
    def scores(self, image_BCHW: Tensor) -> Tensor:
        """probabilities_BK; raises ValueError unless images are finite RGB batches."""
        pixels_BCHW = self._processor(image_BCHW).to(self._network.like.device)
        return _finite(scores_of(self._network.outputs(pixels_BCHW), self._network.answer))


def _finite(scores_BK: Tensor) -> Tensor:
    if not bool(torch.isfinite(scores_BK).all()):
        rows = (~torch.isfinite(scores_BK).all(dim=1)).nonzero().flatten().tolist()
        raise ModelProblem(f"classifier: expected finite scores, got NaN or infinity for {rows}")
    return scores_BK.float().cpu()
