"""The networks of image encoders, frozen: what distances between 8-bit pictures and losses with
gradients to the image both compute.

Shape suffixes: B batch, C colours, H rows, W columns, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lib.models.checkpoint import EMBEDDED
from lib.models.image_preprocessing import load_preprocessing
from lib.models.transformers_folder import (
    TransformersFolder,
    embedded_regressor_folder,
    open_image_encoder,
)
from lib.models.transformers_weights import brief, load_weights
from lib.problems import ModelProblem

_POOLER_IS_OPTIONAL = ("beit", "data2vec-vision", "deit", "ijepa", "vit")
_PROBE = 2
"""Images of the trial run."""


@dataclass(frozen=True, slots=True)
class EncoderNetwork:
    """An image encoder in evaluation mode that computes no gradients of its weights."""

    embed: Callable[[Tensor], Tensor]
    """Images to embeddings (B, E), of no particular norm, on the device of `like`;
    differentiable.
    """
    like: Tensor
    """A weight: its device and precision are those of the network."""


def load_differentiable_encoder(path: str, device: torch.device) -> EncoderNetwork:
    """`embedded` or a folder in transformers format, with `embed` of RGB images in [-1, 1] of any
    device, to which gradients go back; they are neither rounded nor clamped. What the embedding is,
    see `lib.metrics.embeddings`.

    Raises:
        ModelProblem: as `load_image_encoder`, or gradients cannot go through the preprocessing.
    """
    if path == EMBEDDED:
        network = embedded_encoder(device)
        return _after(lambda image_BCHW: image_BCHW.to(network.like), network)
    found = open_image_encoder(path)
    network = transformers_encoder(found, device)
    encoder = _after(load_preprocessing(found, network.like), network)
    refuse_unsteady(torch.no_grad()(encoder.embed), found)
    return encoder


def embedded_encoder(device: torch.device) -> EncoderNetwork:
    """The regressor of the demo faces up to its last layer: RGB images of 64x64 in [-1, 1]; it
    raises ValueError for others.
    """
    from lib.demo import regressor

    model = regressor.load(embedded_regressor_folder()).to(device)
    head = model.head[:-1]

    def embed(image_BCHW: Tensor) -> Tensor:
        if image_BCHW.shape[2:] != (64, 64):
            raise ValueError(
                "the embedded encoder reads images of 64 x 64 pixels, got"
                f" {image_BCHW.shape[3]} x {image_BCHW.shape[2]}; use another encoder"
            )
        embedding_BE: Tensor = head(model.features(image_BCHW))
        return embedding_BE

    return EncoderNetwork(embed, next(model.parameters()))


def transformers_encoder(found: TransformersFolder, device: torch.device) -> EncoderNetwork:
    """`AutoModel`, of pixels as its processor makes them.

    Raises:
        ModelProblem: no image encoder, or its weights do not fit its config or are not finite.
    """
    from transformers import AutoModel

    without = found.config.get("model_type") in _POOLER_IS_OPTIONAL and not _has_pooler(found)
    options = {"add_pooling_layer": False} if without else {}
    model: Any = load_weights(AutoModel, found, "an image encoder", **options).to(device)
    forward = getattr(model, "get_image_features", model)

    def embed(pixels_BCHW: Tensor) -> Tensor:
        return _pooled(forward(pixel_values=pixels_BCHW))

    return EncoderNetwork(embed, next(model.parameters()))


def refuse_unsteady(encoder: Callable[[Tensor], Tensor], found: TransformersFolder) -> None:
    """Raises ModelProblem where an encoder fails on a picture, or answers differently each time (a
    masked autoencoder hides random patches).
    """
    grey_BCHW = torch.zeros(_PROBE, 3, 64, 64)
    try:
        same = torch.equal(encoder(grey_BCHW), encoder(grey_BCHW))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelProblem(
            f"{found.folder}: expected a model that turns images to embeddings, got"
            f" {found.config.get('model_type')!r}, which fails on an image: {brief(error)}"
        ) from error
    if not same:
        raise ModelProblem(
            f"{found.folder}: expected the same embedding of an image every time, but this model"
            f" ({found.config.get('model_type')!r}) draws random numbers"
        )


def _after(pixels: Callable[[Tensor], Tensor], network: EncoderNetwork) -> EncoderNetwork:
    return EncoderNetwork(lambda image_BCHW: network.embed(pixels(image_BCHW)), network.like)


def _pooled(output: Any) -> Tensor:
    pooled: Tensor | None = getattr(output, "pooler_output", None)
    if pooled is not None:
        return pooled.flatten(1)
    last: Tensor = output.last_hidden_state
    return last[:, 0] if last.ndim == 3 else last.mean((2, 3))


def _has_pooler(found: TransformersFolder) -> bool:
    """Whether the weights hold one: a model trained to classify has none, and transformers would
    make one up of noise.
    """
    for path in found.weights:
        with safe_open(path, framework="pt") as file:
            if any("pooler." in name for name in file.keys()):  # noqa: SIM118, it is no mapping
                return True
    return False
