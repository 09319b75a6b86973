"""How an image should change to fit one text rather than another: the gradient that a text-guided
direction starts from (T-LOCO, Chen et al. 2024), by a local CLIP model.

Shape suffixes: B batch, C colours, H rows, W columns, E embedding, L tokens.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import torch
from torch import Tensor

from lib.models.transformers_folder import TransformersFolder, open_text_image
from lib.models.transformers_weights import brief, load_weights
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
    from transformers import CLIPModel, CLIPTokenizer

    found = open_text_image(path)
    model = load_weights(CLIPModel, found, "a CLIP model")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(
            str(found.folder), local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelProblem(
            f"{found.folder}: expected a CLIP tokenizer, got: {brief(error)}"
        ) from error
    mean, std = _colour_statistics(found)
    return ClipTextImage(model.to(device), tokenizer, mean, std)


class ClipTextImage:
    """CLIP with its preprocessing written so that gradients reach the image.

    Images are resized (bicubic, antialiased) to the model's square and normalised, as CLIP's own
    processor does on 8-bit pictures; they are not clamped, so a prediction that overshoots white
    keeps its gradient. Computes in the model's precision.
    """

    def __init__(self, model: Any, tokenizer: Any, mean: list[float], std: list[float]) -> None:
        parameter: Tensor = next(model.parameters())
        self._model = model
        self._tokenizer = tokenizer
        self._like = parameter
        self._size = int(model.config.vision_config.image_size)
        self._max_tokens = int(model.config.text_config.max_position_embeddings)
        self._mean_CHW = parameter.new_tensor(mean)[:, None, None]
        self._std_CHW = parameter.new_tensor(std)[:, None, None]

    def similarity(self, image_BCHW: Tensor, text: str) -> Tensor:
        """Cosine between the embeddings of each image and the text, (B,); differentiable.

        Raises:
            ConfigProblem: the text is empty or longer than the model can read.
        """
        text_E = self._text(text)
        cosine_B: Tensor = self._image(image_BCHW) @ text_E
        return cosine_B

    def difference(self, source: str, target: str) -> Tensor:
        """Embedding of `target` less that of `source`, both of unit norm, (E,).

        Raises:
            ConfigProblem: the texts mean the same to the model, or one cannot be read.
        """
        difference_E = self._text(target) - self._text(source)
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
            (gradient_BCHW,) = torch.autograd.grad((self._image(image) @ difference_E).sum(), image)
        if not bool(torch.isfinite(gradient_BCHW).all()):
            raise ValueError("the text-image model's gradient is not finite for this image")
        return gradient_BCHW

    def _image(self, image_BCHW: Tensor) -> Tensor:
        square = (self._size, self._size)
        unit_BCHW = (image_BCHW.to(self._like) + 1) / 2
        if tuple(unit_BCHW.shape[2:]) != square:
            unit_BCHW = torch.nn.functional.interpolate(
                unit_BCHW, square, mode="bicubic", antialias=True, align_corners=False
            )
        pixels_BCHW = (unit_BCHW - self._mean_CHW) / self._std_CHW
        features_BE = self._model.get_image_features(pixel_values=pixels_BCHW).pooler_output
        return torch.nn.functional.normalize(features_BE, dim=1)

    @torch.no_grad()
    def _text(self, text: str) -> Tensor:
        if not text.strip():
            raise ConfigProblem("text guidance: expected a text, got an empty one")
        tokens_BL = self._tokenizer([text], return_tensors="pt")
        count = tokens_BL["input_ids"].shape[1]
        if count > self._max_tokens:
            raise ConfigProblem(
                f"text guidance: the text {text[:40]!r}… has {count} tokens, the model reads"
                f" {self._max_tokens}; shorten it"
            )
        features_BE = self._model.get_text_features(
            input_ids=tokens_BL["input_ids"].to(self._like.device),
            attention_mask=tokens_BL["attention_mask"].to(self._like.device),
        ).pooler_output
        return torch.nn.functional.normalize(features_BE[0], dim=0)


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
