"""Objectives of pixels: the change that the generator's counterfactual shows, and no change.

Shape suffixes: B batch, C colours, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lib.objectives.prediction import Against, Prediction, as_promised

_LEVEL = 1 / 255
"""Half of one 8-bit level of images in [-1, 1]: a smaller true change is rounding of the files."""


@dataclass(frozen=True, slots=True)
class PairedChange:
    """mean |(edited - plain) - (target - image)|^p / mean |target - image|^p over the pixels of an
    example, p = 2 for `l2`, 1 for `l1`: 1 where nothing is edited, 0 where the change is the true
    one, whatever its size.
    """

    norm: Literal["l1", "l2"] = "l2"
    name: str = "paired"

    def __call__(self, prediction: Prediction) -> Tensor:
        """(B,); raises ValueError where there is no target."""
        if prediction.target_BCHW is None:
            raise ValueError(
                f"{self.name}: expected a counterfactual image of every example, got none"
            )
        edited_BCHW, plain_BCHW, image_BCHW, target_BCHW = (
            as_promised(part, prediction)
            for part in (
                prediction.edited_BCHW,
                prediction.reference("prediction"),
                prediction.reference("image"),
                prediction.target_BCHW.detach(),
            )
        )
        true_BCHW = target_BCHW - image_BCHW
        missing_B = self._mean(edited_BCHW - plain_BCHW - true_BCHW)
        floor = _LEVEL if self.norm == "l1" else _LEVEL**2
        return missing_B / self._mean(true_BCHW).clamp_min(floor)

    def _mean(self, difference_BCHW: Tensor) -> Tensor:
        if self.norm == "l1":
            return difference_BCHW.abs().flatten(1).mean(dim=1)
        return difference_BCHW.square().flatten(1).mean(dim=1)


@dataclass(frozen=True, slots=True)
class PixelDistance:
    """mean |edited - plain| over pixels (L_recon of Kwon et al. 2023), or against the real image
    (Hou et al. 2024, DiffusionCLIP).
    """

    against: Against = "prediction"
    name: str = "l1"

    def __call__(self, prediction: Prediction) -> Tensor:
        """(B,)."""
        edited_BCHW = as_promised(prediction.edited_BCHW, prediction)
        reference_BCHW = as_promised(prediction.reference(self.against), prediction)
        return (edited_BCHW - reference_BCHW).abs().flatten(1).mean(dim=1)
