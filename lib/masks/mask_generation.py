"""Regions from a mask-generation network (SAM, Kirillov et al. 2023) that is told a place: points
inside, or a box around.

Shape suffixes: B batch, M proposed masks, C colours; H, W of the image, Y, X of the network's
answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from lib.files.image_files import ImageError
from lib.masks.provider import Masks
from lib.models.transformers_folder import TransformersFolder
from lib.models.transformers_images import ImageProcessor
from lib.models.transformers_weights import load_weights
from lib.problems import ModelProblem
from lib.records import Sample


@dataclass(frozen=True, slots=True)
class Place:
    """Where to look, in fractions of the image; points, boxes, or both."""

    points: tuple[tuple[float, float], ...]
    """x, y of points inside."""
    boxes: tuple[tuple[float, float, float, float], ...]
    """left, top, right, bottom of a box around; at most one."""


class GeneratedMasks:
    """`SamModel`: of the masks that it proposes for a place, the one that it predicts to have the
    highest IoU; coverage is 0 or 1. The image encoder, nearly all of the work, runs once an image.

    Raises:
        ModelProblem: the folder holds another kind of model, its weights do not fit, or its
            processor does not bring images to the size that the network takes.
    """

    def __init__(
        self, found: TransformersFolder, regions: Mapping[str, Place], device: torch.device
    ) -> None:
        from transformers import SamModel

        self._processor = ImageProcessor(found)
        model = load_weights(SamModel, found, "a mask generator")
        self._side = int(model.config.vision_config.image_size)
        size = self._processor.setting("size")
        if not isinstance(size, Mapping) or size.get("longest_edge") != self._side:
            raise ModelProblem(
                f"{found.folder}: expected a processor that scales the longest edge to"
                f" {self._side}, as the network takes it, got size {size}"
            )
        self._model = model.to(device)
        self._device = device
        self._regions = regions

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample]) -> Sequence[Masks | ImageError]:
        """ImageError `not_finite` where the network gives NaN or infinity."""
        image_BCHW = torch.stack([sample.image_CHW for sample in samples])
        # Image by image: the attention maps of one take 1.6 GB at 1024 pixels, and one image keeps
        # a GPU busy.
        embedding_BCYX = torch.cat([self._embedding(row[None]) for row in image_BCHW])
        found_BHW = {
            region: self._best(place, embedding_BCYX, image_BCHW.shape[2:])
            for region, place in self._regions.items()
        }
        return [
            {region: (logits_BHW[row] > 0).float() for region, logits_BHW in found_BHW.items()}
            if all(bool(torch.isfinite(found[row]).all()) for found in found_BHW.values())
            else ImageError("not_finite", "the mask generator gave NaN or infinity")
            for row in range(len(samples))
        ]

    def _embedding(self, image_1CHW: Tensor) -> Tensor:
        pixels_1CHW = self._processor(image_1CHW).to(self._device)
        embedding_1CYX: Tensor = self._model.get_image_embeddings(pixels_1CHW)
        return embedding_1CYX

    def _best(self, place: Place, embedding_BCYX: Tensor, size: torch.Size) -> Tensor:
        """(B, H, W) on the CPU: logits of the mask with the highest predicted IoU."""
        count = len(embedding_BCYX)
        prompts: dict[str, Tensor] = {}
        if place.points:
            prompts["input_points"] = self._pixels(place.points).expand(count, 1, -1, -1)
        if place.boxes:
            prompts["input_boxes"] = self._pixels(place.boxes).expand(count, -1, -1)
        answer = self._model(image_embeddings=embedding_BCYX, multimask_output=True, **prompts)
        best_B = answer.iou_scores[:, 0].argmax(1)
        logits_BYX: Tensor = answer.pred_masks[torch.arange(count), 0, best_B].float()
        # The way of SAM's own post-processing: to the size of its input, then to that of the image.
        for target in ((self._side, self._side), tuple(size)):
            logits_BYX = interpolate(
                logits_BYX[:, None], size=target, mode="bilinear", align_corners=False
            )[:, 0]
        return logits_BYX.cpu()

    def _pixels(self, places: Sequence[Sequence[float]]) -> Tensor:
        """Coordinates in pixels of the network's input, float32."""
        return torch.tensor(places, device=self._device) * self._side
