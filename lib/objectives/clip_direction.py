"""The directional CLIP loss (Gal et al. 2022): the image's embedding is to move as the text's does.

Shape suffixes: B batch, C colours, H rows, W columns, E embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lib.objectives.prediction import Against, Prediction, as_promised

Form = Literal["cosine", "log"]
_SHORTEST = 1e-2
"""Of dI, of unit embeddings. A new editor changes nothing, and the cosine has no derivative where
dI is zero: below this length dI . dT is divided by this instead, so that the first step goes
along dT and is finite. Edits that can be seen are tens of times longer.
"""
_SMALLEST = 1e-6
"""Of the logarithm's argument, which is zero for an edit exactly opposite to the texts."""


class TextImageEmbeddings(Protocol):
    """Unit embeddings of images and the change between texts; see `ClipTextImage`."""

    def images(self, image_BCHW: Tensor) -> Tensor:
        """(B, E), differentiable."""
        ...


@dataclass(frozen=True, slots=True)
class ClipDirection:
    """L_dir = 1 - cos(dI, dT), dI = E(edited) - E(source), dT = `change_E` (Kwon et al. 2023,
    eq. 7), as the paper has it: `cosine`. Their released code, and that of DiffusionCLIP, descend
    -log((2 - L_dir) / 2): `log`, which is steeper where an edit goes the wrong way.
    """

    embeddings: TextImageEmbeddings
    change_E: Tensor
    """E(target text) - E(source text), of any length but zero; on the model's device."""
    form: Form = "cosine"
    against: Against = "prediction"
    name: str = "clip"

    def __call__(self, prediction: Prediction) -> Tensor:
        """(B,): 0 where the image moves as the text, 2 (`log`: 14) where it moves the other way."""
        with torch.no_grad():
            before_BE = self.embeddings.images(prediction.reference(self.against))
        moved_BE = self.embeddings.images(prediction.edited_BCHW) - before_BE
        length_B = moved_BE.norm(dim=1).clamp_min(_SHORTEST)
        cosine_B = moved_BE @ normalize(self.change_E, dim=0) / length_B
        if self.form == "log":
            return as_promised(-((1 + cosine_B) / 2).clamp_min(_SMALLEST).log(), prediction)
        return as_promised(1 - cosine_B, prediction)
