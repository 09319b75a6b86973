"""The evaluate stage: what every edit changed in its region and outside, from the pixels that are
stored.

Shape suffixes: B edits, C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from lib.metrics.changes import edit_changes, fidelity
from lib.pixels import as_floats
from lib.records import Edited, Evaluated, Failure, Score


class Evaluator:
    """Measures the edits of an image together, and its reconstruction once."""

    def __init__(self, *, device: torch.device, batch_size: int) -> None:
        self._device = device
        self._batch_size = batch_size
        """Edits measured together: what bounds memory."""

    @torch.no_grad()
    def __call__(
        self, items: Iterable[Edited], reject: Callable[[Failure], None]
    ) -> Iterator[Evaluated]:
        """Rejects nothing."""
        for edited in items:
            original_CHW = edited.sample.image_CHW.to(self._device)
            reconstruction_CHW = as_floats(edited.reconstruction_CHW.to(self._device))
            shared = {**fidelity(reconstruction_CHW, original_CHW), "posterior_gap": None}
            metrics = [
                {**own, **shared} for own in self._changes(edited, reconstruction_CHW, original_CHW)
            ]
            scores = tuple(
                Score(position, edit, measured, filtered=None)
                for position, (edit, measured) in enumerate(zip(edited.edits, metrics, strict=True))
            )
            yield Evaluated(edited, scores, edited.network_evaluations)

    def _changes(
        self, edited: Edited, reconstruction_CHW: Tensor, original_CHW: Tensor
    ) -> Iterator[dict[str, float]]:
        for start in range(0, len(edited.edits), self._batch_size):
            edits = edited.edits[start : start + self._batch_size]
            images_BCHW = torch.stack([edit.image_CHW for edit in edits]).to(self._device)
            mask_BHW = torch.stack([edit.region.mask_HW for edit in edits]).to(self._device)
            yield from edit_changes(
                as_floats(images_BCHW), reconstruction_CHW, original_CHW, mask_BHW
            )
