"""Regions from any semantic-segmentation network of transformers: face parsers such as SegFormer
ones, and MaskFormer and Mask2Former.

Images go through the network's own processor as 8-bit pictures: published pipelines fed [-1, 1]
images to parsers that were trained on normalised [0, 1] ones, and the masks suffered.

Shape suffixes: B batch, C colours; H, W of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lib.files.image_files import ImageError
from lib.masks.provider import Masks
from lib.models.transformers_folder import TransformersFolder
from lib.models.transformers_images import ImageProcessor
from lib.models.transformers_weights import load_weights
from lib.problems import ModelProblem
from lib.records import Sample

_UNIVERSAL = ("maskformer", "mask2former")
"""Model types whose answer is masks and classes of queries."""
_ANSWERS = ("logits", "masks_queries_logits", "class_queries_logits")


class SemanticMasks:
    """The most likely class at every pixel by the network's own post-processing, which scales the
    scores, not the classes, to the size of the image; coverage is 0 or 1.

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
        from transformers import AutoModelForSemanticSegmentation as Semantic
        from transformers import AutoModelForUniversalSegmentation as Universal

        kind = Universal if found.config.get("model_type") in _UNIVERSAL else Semantic
        self._model = load_weights(kind, found, "a semantic segmenter").to(device)
        self._processor = ImageProcessor(found)
        _refuse_cuts(self._processor, found)
        self._device = device
        self._regions = regions
        """Region -> numbers of its classes."""

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """ImageError `not_finite` where the network gives NaN or infinity."""
        image_BCHW = torch.stack([sample.image_CHW for sample in samples])
        answer = self._model(pixel_values=self._processor(image_BCHW).to(self._device))
        labels_BHW = self._processor.semantic_labels(
            answer, [tuple(image_BCHW.shape[2:])] * len(samples)
        )
        return [
            self._masks(labels_HW)
            if finite
            else ImageError("not_finite", "the semantic segmenter gave NaN or infinity")
            for labels_HW, finite in zip(labels_BHW, _finite(answer), strict=True)
        ]

    def _masks(self, labels_HW: Tensor) -> Masks:
        return {
            region: torch.isin(labels_HW, torch.tensor(numbers)).float()
            for region, numbers in self._regions.items()
        }


def _finite(answer: Any) -> list[bool]:
    """Whether all numbers of the answer for an image are finite."""
    parts = [getattr(answer, name) for name in _ANSWERS if hasattr(answer, name)]
    return [
        all(bool(torch.isfinite(part).all()) for part in row) for row in zip(*parts, strict=True)
    ]


def _refuse_cuts(processor: ImageProcessor, found: TransformersFolder) -> None:
    cuts = processor.setting("size") != processor.setting("crop_size")
    harm = {"do_center_crop": cuts, "do_pad": True}
    for name, harmful in harm.items():
        if processor.setting(name) and harmful:
            raise ModelProblem(
                f"{found.folder}: expected a processor that keeps the whole image, but its {name}"
                " is true; set it to false in preprocessor_config.json"
            )
