"""Images as vectors, by any image encoder that transformers can run: what similarity and the
distances between sets of images compare.

Shape suffixes: B batch, C colours, H rows, W columns, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lib.models.checkpoint import EMBEDDED
from lib.models.encoder_network import embedded_encoder, refuse_unsteady, transformers_encoder
from lib.models.transformers_folder import TransformersFolder, open_image_encoder
from lib.models.transformers_images import ImageProcessor, check_images
from lib.problems import ModelProblem

ImageEncoder = Callable[[Tensor], Tensor]
"""Images (B, C, H, W) float32 in [-1, 1] -> embeddings (B, E) float32 on the CPU."""


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
    refuse_unsteady(encoder, found)
    return encoder


class EmbeddedFeatures:
    """What the regressor of the demo faces computes before its last layer; images of 64x64."""

    def __init__(self, device: torch.device) -> None:
        self._network = embedded_encoder(device)

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Raises ValueError for images of another size."""
        check_images(image_BCHW)
        return _finite(self._network.embed(image_BCHW.to(self._network.like.device)))


class TransformersEncoder:
    """`AutoModel` with the processor that belongs to it."""

    def __init__(self, found: TransformersFolder, device: torch.device) -> None:
        self._processor = ImageProcessor(found)
        self._network = transformers_encoder(found, device)

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> Tensor:
        """Raises ValueError unless images are finite RGB batches."""
        pixels_BCHW = self._processor(image_BCHW).to(self._network.like.device)
        return _finite(self._network.embed(pixels_BCHW))


def _finite(embedding_BE: Tensor) -> Tensor:
    if not bool(torch.isfinite(embedding_BE).all()):
        raise ModelProblem("image encoder: expected finite embeddings, got NaN or infinity")
    return embedding_BE.float().cpu()
