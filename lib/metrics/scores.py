"""Scores of an edit by a model: how much of the original is still there, and whether it changed as
a text says.

Shape suffixes: B edits, C colours, H rows, W columns, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from lib.metrics.embeddings import ImageEncoder, load_image_encoder
from lib.metrics.lpips_network import Network, load_lpips_network
from lib.models.text_image import load_text_image

_ROUNDING = 1e-5
"""Length up to which two unit embeddings of one image differ, in batches of other sizes."""


class Scorer(Protocol):
    """A frozen judge of edits."""

    def __call__(self, original_BCHW: Tensor, edited_BCHW: Tensor) -> Tensor:
        """(B,) float32 on the CPU; images float32 RGB in [-1, 1]. One original (1, C, H, W) stands
        for all edits, and is then embedded once. Raises ValueError for other shapes and for values
        that are not finite.
        """
        ...


def load_lpips(net: Network, device: torch.device) -> Scorer:
    """LPIPS between original and edited image (Zhang et al. 2018): 0 is the same.

    Raises:
        ModelProblem: the optional package or its weights cannot be loaded.
    """
    return LpipsScorer(load_lpips_network(net, device, "or another kind of score"))


def load_similarity(path: str, device: torch.device) -> Scorer:
    """Cosine between the embeddings of original and edited image by an encoder (`embedded`, or a
    folder; see `lib.metrics.embeddings`): 1 is the same. With a face encoder it is the identity
    similarity of the literature, with CLIP or DINOv2 their image similarity.

    Raises:
        ModelProblem: the encoder cannot be used.
    """
    return SimilarityScorer(load_image_encoder(path, device))


def load_directional(path: str, source: str, target: str, device: torch.device) -> Scorer:
    """CLIP directional similarity: the cosine between what the edit does to the image's embedding
    and what the texts do to theirs,

        cos(E(edited) - E(original), E(target) - E(source)),   E of unit norm,

    which is 1 - L_dir of StyleGAN-NADA (Gal et al. 2022) and S_dir of Asyrp (Kwon et al. 2023).
    0 where the edit does not change the embedding.

    Raises:
        ConfigProblem: the texts mean the same to the model, or one cannot be read.
        ModelProblem: the folder holds no CLIP model that can be used.
    """
    texts_E = load_text_image(path, device).difference(source, target).float().cpu()
    return DirectionalScorer(load_image_encoder(path, device), texts_E)


class LpipsScorer:
    """See `load_lpips`."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._between = between

    def __call__(self, original_BCHW: Tensor, edited_BCHW: Tensor) -> Tensor:
        """(B,) float32 on the CPU, not negative."""
        _check(original_BCHW, edited_BCHW)
        return self._between(original_BCHW.expand_as(edited_BCHW), edited_BCHW).float().cpu()


class SimilarityScorer:
    """See `load_similarity`."""

    def __init__(self, encoder: ImageEncoder) -> None:
        self._encoder = encoder

    def __call__(self, original_BCHW: Tensor, edited_BCHW: Tensor) -> Tensor:
        """(B,) float32 in [-1, 1] on the CPU."""
        _check(original_BCHW, edited_BCHW)
        return cosine_similarity(self._encoder(original_BCHW), self._encoder(edited_BCHW), dim=1)


class DirectionalScorer:
    """See `load_directional`; `texts_E` is E(target) - E(source)."""

    def __init__(self, encoder: ImageEncoder, texts_E: Tensor) -> None:
        self._encoder = encoder
        self._texts_E = texts_E

    def __call__(self, original_BCHW: Tensor, edited_BCHW: Tensor) -> Tensor:
        """(B,) float32 in [-1, 1] on the CPU."""
        _check(original_BCHW, edited_BCHW)
        before_BE = normalize(self._encoder(original_BCHW), dim=1)
        after_BE = normalize(self._encoder(edited_BCHW), dim=1)
        moved_BE = after_BE - before_BE
        cosine_B = cosine_similarity(moved_BE, self._texts_E[None], dim=1)
        return torch.where(moved_BE.norm(dim=1) > _ROUNDING, cosine_B, 0.0)


def _check(original_BCHW: Tensor, edited_BCHW: Tensor) -> None:
    original, edited = tuple(original_BCHW.shape), tuple(edited_BCHW.shape)
    if len(edited) != 4 or edited[1] != 3 or original not in (edited, (1, *edited[1:])):
        raise ValueError(
            f"expected edited images (B, 3, H, W) and originals of the same shape or one for all,"
            f" got {edited} and {original}"
        )
    if not bool(torch.isfinite(original_BCHW).all() and torch.isfinite(edited_BCHW).all()):
        raise ValueError("expected finite images to score, got NaN or infinity")
