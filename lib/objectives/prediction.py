"""What an objective judges, an edited prediction of the clean image beside the model's own, and the
interface of objectives.

Shape suffixes: B batch, C colours, H rows, W columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Against = Literal["prediction", "image"]
"""What an edited prediction is compared with: the frozen model's prediction from the same x_t (Kwon
et al. 2023, eq. 7), or the real image (their released code, and Hou et al. 2024).
"""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Predictions of x_0 from one x_t: RGB in [-1, 1] nominally, not clamped, decoded where the
    model works on latents; all of one shape (B, 3, H, W).
    """

    edited_BCHW: Tensor
    """P_t with the editor; carries the gradient."""
    plain_BCHW: Tensor
    """P_t of the frozen model."""
    image_BCHW: Tensor
    """The real x_0."""
    target_BCHW: Tensor | None = None
    """x_0 as it should look, where that is known (paired training)."""

    def __post_init__(self) -> None:
        shape = tuple(self.edited_BCHW.shape)
        if len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"expected images (B, 3, H, W), got {shape}")
        for other in (self.plain_BCHW, self.image_BCHW, self.target_BCHW):
            if other is not None and tuple(other.shape) != shape:
                raise ValueError(
                    f"expected predictions and images of one shape, got {shape} and"
                    f" {tuple(other.shape)}"
                )

    def reference(self, against: Against) -> Tensor:
        """What the edited prediction is compared with; carries no gradient."""
        return (self.plain_BCHW if against == "prediction" else self.image_BCHW).detach()


class Objective(Protocol):
    """A loss of each example; smaller is better."""

    @property
    def name(self) -> str:
        """Of its curve."""
        ...

    def __call__(self, prediction: Prediction) -> Tensor:
        """(B,), on the device of `edited_BCHW` and differentiable in it; float32, or float64 where
        the images are.
        """
        ...


def as_promised(value: Tensor, prediction: Prediction) -> Tensor:
    """The loss in the precision and on the device that `Objective` promises; also for images, whose
    pixels are then summed in no less than float32.
    """
    edited = prediction.edited_BCHW
    return value.to(edited.device, torch.promote_types(edited.dtype, torch.float32))
