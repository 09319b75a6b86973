"""The networks of image classifiers, frozen: what scores of 8-bit pictures and losses with
gradients to the image both compute.

Shape suffixes: B batch, C colours, H rows, W columns, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.models.checkpoint import EMBEDDED
from lib.models.image_preprocessing import load_preprocessing
from lib.models.transformers_folder import (
    Answer,
    TransformersFolder,
    answer_of,
    embedded_regressor_folder,
    open_classifier,
)
from lib.models.transformers_weights import load_weights


@dataclass(frozen=True, slots=True)
class ClassifierNetwork:
    """A classifier in evaluation mode that computes no gradients of its weights."""

    names: tuple[str, ...]
    """Of the classes, in the order of the outputs."""
    answer: Answer
    outputs: Callable[[Tensor], Tensor]
    """Images to raw outputs (B, K), logits or numbers, on the device of `like`; differentiable."""
    like: Tensor
    """A weight: its device and precision are those of the network."""


def load_differentiable_classifier(path: str, device: torch.device) -> ClassifierNetwork:
    """`embedded` or a folder in transformers format, with `outputs` of RGB images in [-1, 1] of any
    device, to which gradients go back; they are neither rounded nor clamped.

    Raises:
        ModelProblem: as `load_classifier`, or gradients cannot go through the preprocessing.
    """
    if path == EMBEDDED:
        network = embedded_network(device)
        return _after(lambda image_BCHW: image_BCHW.to(network.like), network)
    found = open_classifier(path)
    network = transformers_network(found, device)
    return _after(load_preprocessing(found, network.like), network)


def embedded_network(device: torch.device) -> ClassifierNetwork:
    """The regressor of the demo faces' factors: RGB images of 64x64 in [-1, 1]; it raises
    ValueError for others.
    """
    from lib.demo import regressor
    from lib.demo.faces import FACTORS

    model = regressor.load(embedded_regressor_folder()).to(device)
    return ClassifierNetwork(tuple(FACTORS), "regression", model, next(model.parameters()))


def transformers_network(found: TransformersFolder, device: torch.device) -> ClassifierNetwork:
    """`AutoModelForImageClassification`, of pixels as its processor makes them.

    Raises:
        ModelProblem: no image classifier, or its weights do not fit its config or are not finite.
    """
    from transformers import AutoModelForImageClassification

    model = load_weights(AutoModelForImageClassification, found, "an image classifier").to(device)
    labels = {int(k): str(v) for k, v in model.config.id2label.items()}
    names = tuple(labels[k] for k in sorted(labels))

    def outputs(pixels_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = model(pixel_values=pixels_BCHW).logits
        return logits_BK

    answer = answer_of(model.config.problem_type, len(names))
    return ClassifierNetwork(names, answer, outputs, next(model.parameters()))


def scores_of(outputs_BK: Tensor, answer: Answer) -> Tensor:
    """scores_BK: probabilities, or the outputs themselves of a regression."""
    if answer == "regression":
        return outputs_BK
    return outputs_BK.sigmoid() if answer == "multi_label" else outputs_BK.softmax(dim=1)


def _after(pixels: Callable[[Tensor], Tensor], network: ClassifierNetwork) -> ClassifierNetwork:
    def outputs(image_BCHW: Tensor) -> Tensor:
        return network.outputs(pixels(image_BCHW))

    return ClassifierNetwork(network.names, network.answer, outputs, network.like)
