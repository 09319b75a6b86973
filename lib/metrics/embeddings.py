"""Images as vectors, by any image encoder that transformers can run: what similarity and the
distances between sets of images compare.

Shape suffixes: B batch, C colours, H rows, W columns, L tokens, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from lib.models.checkpoint import EMBEDDED
from lib.models.transformers_folder import (
    TransformersFolder,
    embedded_regressor_folder,
    open_image_encoder,
)
from lib.models.transformers_images import ImageProcessor, check_images
from lib.models.transformers_weights import brief, load_weights
from lib.problems import ModelProblem

ImageEncoder = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) float32 in [-1, 1] -> embeddings (B, E) float32 on the CPU."""

_POOLER_IS_OPTIONAL = ("beit", "data2vec-vision", "deit", "ijepa", "vit")
_PROBE = 2
"""Images of the trial run."""


def load_image_encoder(path: str, device: torch.device) -> ImageEncoder:
    """`embedded` (features of the demo faces' factor regressor) or a folder in transformers format.

    The embedding is what the architecture calls its own: image features where texts share the space
    (CLIP, SigLIP), else the pooled output (DINOv2, ViT with a pooler, ResNet, ConvNeXt, Swin), else
    the first token (ViT without a pooler), else the mean over the last map.

    Raises:
        ModelProblem: the folder is incomplete, pickled, of no image encoder, its weights do not
            fit, or it answers differently each time (a masked autoencoder hides random patches).
    """
    if path == EMBEDDED:
        return EmbeddedFeatures(device)
    found = open_image_encoder(path)
    encoder = TransformersEncoder(found, device)
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
    return encoder


class EmbeddedFeatures:
    """What the regressor of the demo faces computes before its last layer; images of 64x64."""

    def __init__(self, device: torch.device) -> None:
        from lib.demo import regressor

        model = regressor.load(embedded_regressor_folder()).to(device)
        self._features, self._head = model.features, model.head[:-1]
        self._device = device

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Raises ValueError for images of another size."""
        check_images(image_BCHW)
        if image_BCHW.shape[2:] != (64, 64):
            raise ValueError(
                "the embedded encoder reads images of 64 x 64 pixels, got"
                f" {image_BCHW.shape[3]} x {image_BCHW.shape[2]}; use another encoder"
            )
        map_BCHW: Tensor = self._features(image_BCHW.to(self._device))
        embedding_BE: Tensor = self._head(map_BCHW)
        return _finite(embedding_BE)


class TransformersEncoder:
    """`AutoModel` with the processor that belongs to it."""

    def __init__(self, found: TransformersFolder, device: torch.device) -> None:
        from transformers import AutoModel

        self._processor = ImageProcessor(found)
        without = found.config.get("model_type") in _POOLER_IS_OPTIONAL and not _has_pooler(found)
        options = {"add_pooling_layer": False} if without else {}
        model: Any = load_weights(AutoModel, found, "an image encoder", **options).to(device)
        self._forward = getattr(model, "get_image_features", model)
        self._device = device

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Raises ValueError unless images are finite RGB batches."""
        pixels_BCHW = self._processor(image_BCHW).to(self._device)
        return _finite(_pooled(self._forward(pixel_values=pixels_BCHW)))


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


def _finite(embedding_BE: Tensor) -> Tensor:
    if not bool(torch.isfinite(embedding_BE).all()):
        raise ModelProblem("image encoder: expected finite embeddings, got NaN or infinity")
    return embedding_BE.float().cpu()
