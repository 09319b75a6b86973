"""Who or what is shown should stay: a loss of embeddings, with a face encoder the identity loss of
DiffusionCLIP (Kim et al. 2022).

Shape suffixes: B batch, C colours, H rows, W columns, E embedding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.objectives.prediction import Against, Prediction, as_promised


@dataclass(frozen=True, slots=True)
class Identity:
    """1 - cos(E(edited), E(reference))."""

    embed: Callable[[Tensor], Tensor]
    """RGB images in [-1, 1] to embeddings (B, E), differentiable."""
    against: Against = "prediction"
    name: str = "identity"

    def __call__(self, prediction: Prediction) -> Tensor:
        """(B,) in [0, 2]."""
        with torch.no_grad():
            before_BE = normalize(self.embed(prediction.reference(self.against)), dim=1)
        after_BE = normalize(self.embed(prediction.edited_BCHW), dim=1)
        # |a - b|^2 / 2 of unit vectors is 1 - cos without its cancellation near 1: zero for one
        # image, and not the rounding of a product of norms.
        return as_promised((after_BE - before_BE).square().sum(dim=1) / 2, prediction)
