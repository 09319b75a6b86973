"""How well images fit texts, by a local CLIP model, with gradients to the image: what a text-guided
direction starts from (T-LOCO, Chen et al. 2024) and what learned editors are trained by.

Shape suffixes: B batch, C colours, H rows, W columns, E embedding, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.models.image_preprocessing import square_preprocessing
from lib.models.text_tokens import TextTokens, load_text_tokens
from lib.models.transformers_folder import TransformersFolder, open_text_image
from lib.models.transformers_weights import load_weights
from lib.problems import ConfigProblem, ModelProblem

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's training images in [0, 1], for folders that do not say."""


class TextImage(Protocol):
    """A frozen judge of how well images fit texts."""

    def gradient(self, image_BCHW: Tensor, source: str, target: str) -> Tensor:
        """(B, C, H, W): d (similarity to `target` - similarity to `source`) / d image, for RGB
        images in [-1, 1].
        """
        ...


def load_text_image(path: str, device: torch.device) -> ClipTextImage:
    """The CLIP model of a local folder in transformers format, float32, frozen.

    Raises:
        ModelProblem: the folder is incomplete, pickled, no CLIP model, or its weights do not fit
            its config or are not finite.
    """
    from transformers import CLIPModel

    found = open_text_image(path)
    model = load_weights(CLIPModel, found, "a CLIP model")
    mean, std = _colour_statistics(found)
    return ClipTextImage(model.to(device), load_text_tokens(found), mean, std)


class ClipTextImage:
    """CLIP with its preprocessing written so that gradients reach the image.

    Images are resized (bicubic, antialiased) to the model's square and normalised, as CLIP's own
    processor does on 8-bit pictures; they are not clamped, so a prediction that overshoots white
    keeps its gradient. Computes in the model's precision.
    """

    def __init__(self, model: Any, tokens: TextTokens, mean: list[float], std: list[float]) -> None:
        parameter: Tensor = next(model.parameters())
        self._model = model
        self._tokens = tokens
        self._device = parameter.device
        side = int(model.config.vision_config.image_size)
        self._pixels = square_preprocessing(side, mean, std, parameter)

    def similarity(self, image_BCHW: Tensor, text: str) -> Tensor:
        """Cosine between the embeddings of each image and the text, (B,); differentiable.

        Raises:
            ConfigProblem: the text is empty or longer than the model can read.
        """
        cosine_B: Tensor = self.images(image_BCHW) @ self.texts([text])
        return cosine_B

    def difference(self, source: str, target: str, templates: Sequence[str] = ("{}",)) -> Tensor:
        """Embedding of `target` less that of `source`, both of unit norm, each put into
        `templates`, at their `{}`, and averaged as by `texts`; (E,).

        Raises:
            ConfigProblem: the texts mean the same to the model, or one cannot be read.
        """
        filled = [[t.replace("{}", text) for t in templates] for text in (source, target)]
        difference_E = self.texts(filled[1]) - self.texts(filled[0])
        if not bool(difference_E.any()):
            raise ConfigProblem(
                f"text guidance: the texts {source!r} and {target!r} are the same to the model;"
                " expected two that differ in what should change"
            )
        return difference_E

    def gradient(self, image_BCHW: Tensor, source: str, target: str) -> Tensor:
        """d (cos(image, target) - cos(image, source)) / d image, of each image on its own; dtype
        and device of `image_BCHW`. The direction of the directional CLIP loss (Gal et al. 2022)
        at the unedited image, up to a factor.

        Raises:
            ConfigProblem: the texts mean the same to the model, or one cannot be read.
            ValueError: the images are not finite RGB batches, or the gradient is not finite.
        """
        if image_BCHW.ndim != 4 or image_BCHW.shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {tuple(image_BCHW.shape)}")
        if not bool(torch.isfinite(image_BCHW).all()):
            raise ValueError("expected finite images to guide by text, got NaN or infinity")
        difference_E = self.difference(source, target)
        with torch.enable_grad():
            image = image_BCHW.detach().clone().requires_grad_()
            (gradient_BCHW,) = torch.autograd.grad((self.images(image) @ difference_E).sum(), image)
        if not bool(torch.isfinite(gradient_BCHW).all()):
            raise ValueError("the text-image model's gradient is not finite for this image")
        return gradient_BCHW

    def images(self, image_BCHW: Tensor) -> Tensor:
        """Embeddings of unit norm, (B, E), on the model's device; differentiable. RGB images in
        [-1, 1].
        """
        pixels_BCHW = self._pixels(image_BCHW)
        features_BE = self._model.get_image_features(pixel_values=pixels_BCHW).pooler_output
        return normalize(features_BE, dim=1)

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """The direction of the mean of the texts' unit embeddings, of unit norm, (E,).

        Raises:
            ConfigProblem: a text is empty or longer than the model can read.
        """
        units = [self._text(text) for text in texts]
        return units[0] if len(units) == 1 else normalize(torch.stack(units).mean(dim=0), dim=0)

    def _text(self, text: str) -> Tensor:
        tokens_BL = torch.tensor([self._tokens.read(text)], device=self._device)
        features_BE = self._model.get_text_features(
            input_ids=tokens_BL, attention_mask=torch.ones_like(tokens_BL)
        ).pooler_output
        return normalize(features_BE[0], dim=0)


def _colour_statistics(found: TransformersFolder) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of the colours in [0, 1]: the folder's, or CLIP's own."""
    stated: dict[str, Any] = {}
    for path in found.supporting:
        if path.name == "preprocessor_config.json":
            stated = json.loads(path.read_text())
    mean = [float(m) for m in stated.get("image_mean", _CLIP_MEAN)]
    std = [float(s) for s in stated.get("image_std", _CLIP_STD)]
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ModelProblem(
            f"{found.folder / 'preprocessor_config.json'}: expected image_mean and image_std of"
            f" three colours, got {mean} and {std}"
        )
    return mean, std
