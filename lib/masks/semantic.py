"""Regions from any semantic-segmentation network of transformers, such as a face parser.

Images go through the network's own processor as 8-bit pictures: published pipelines fed [-1, 1]
images to parsers that were trained on normalised [0, 1] ones, and the masks suffered.

Shape suffixes: B batch, C colours, K classes; H, W of the image, Y, X of the network's answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib.image_files import ImageError
from lib.masks.provider import Masks
from lib.problems import ModelProblem
from lib.records import Sample
from lib.transformers_folder import TransformersFolder
from lib.transformers_images import ImageProcessor
from lib.transformers_weights import load_weights


class SemanticMasks:
    """`AutoModelForSemanticSegmentation`: the class with the largest logit at every pixel, logits
    scaled to the size of the image, as the model's own post-processing does; coverage is 0 or 1.

    Raises:
        ModelProblem: the folder holds another kind of model, its weights do not fit, or its
            processor cuts or pads the image, so that its answer would not lie over the image.
    """

    def __init__(
        self,
        found: TransformersFolder,
        regions: Mapping[str, Sequence[int]],
        device: torch.device,
    ) -> None:
        from transformers import AutoModelForSemanticSegmentation

        model = load_weights(AutoModelForSemanticSegmentation, found, "a semantic segmenter")
        self._model = model.to(device)
        self._processor = ImageProcessor(found)
        for name in ("do_center_crop", "do_pad"):
            if self._processor.setting(name):
                raise ModelProblem(
                    f"{found.folder}: expected a processor that keeps the whole image, but its"
                    f" {name} is true; set it to false in preprocessor_config.json"
                )
        self._device = device
        self._regions = regions
        """Region -> numbers of its classes."""

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """ImageError `not_finite` where the network gives NaN or infinity."""
        image_BCHW = torch.stack([sample.image_CHW for sample in samples])
        pixels_BCHW = self._processor(image_BCHW).to(self._device)
        logits_BKYX: Tensor = self._model(pixel_values=pixels_BCHW).logits.float()
        return [self._masks(row, image_BCHW.shape[2:]) for row in logits_BKYX]

    def _masks(self, logits_KYX: Tensor, size: torch.Size) -> Masks | ImageError:
        if not bool(torch.isfinite(logits_KYX).all()):
            return ImageError("not_finite", "the semantic segmenter gave NaN or infinity")
        scaled_1KHW = interpolate(
            logits_KYX[None], size=tuple(size), mode="bilinear", align_corners=False
        )
        labels_HW = scaled_1KHW[0].argmax(0).cpu()
        return {
            region: torch.isin(labels_HW, torch.tensor(numbers)).float()
            for region, numbers in self._regions.items()
        }
