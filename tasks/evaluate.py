"""The evaluate stage: what every edit changed in its region and outside, how models judge it, and
which rule it breaks; all from the pixels that are stored.

Shape suffixes: B edits, C, H, W of the image, K attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib.metrics.changes import edit_changes, fidelity
from lib.metrics.columns import CHANGE_PREFIX, SCORE_PREFIX
from lib.metrics.posterior_gap import PosteriorGap
from lib.metrics.rules import Rule, first_broken
from lib.metrics.scores import Scorer
from lib.pixels import as_floats
from lib.records import Edited, Evaluated, Failure, Score


class AttributeReader(Protocol):
    """An image classifier, see `lib.models.image_classifier`."""

    def scores(self, image_BCHW: Tensor) -> Tensor:
        """(B, K) float32 on the CPU, of images in [-1, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class Attributes:
    """Which of a classifier's outputs are compared before and after an edit."""

    reader: AttributeReader
    columns: Mapping[str, int]
    """Name -> column of its scores."""


class Evaluator:
    """Measures the edits of an image together, and its reconstruction once."""

    def __init__(
        self,
        *,
        device: torch.device,
        batch_size: int,
        scorers: Mapping[str, Scorer] | None = None,
        attributes: Attributes | None = None,
        gap: PosteriorGap | None = None,
        rules: Sequence[Rule] = (),
    ) -> None:
        self._device = device
        self._batch_size = batch_size
        """Edits measured together: what bounds memory."""
        self._scorers = dict(scorers or {})
        self._attributes = attributes
        self._gap = gap
        self._rules = tuple(rules)

    @torch.no_grad()
    def __call__(
        self, items: Iterable[Edited], reject: Callable[[Failure], None]
    ) -> Iterator[Evaluated]:
        """Rejects nothing: what a rule says of an edit stands in its score."""
        for edited in items:
            sample = edited.sample
            original_CHW = sample.image_CHW.to(self._device)
            reconstruction_CHW = as_floats(edited.reconstruction_CHW.to(self._device))
            shared: dict[str, float | None] = {
                **fidelity(reconstruction_CHW, original_CHW),
                "posterior_gap": self._gap(sample.image_CHW, sample.seed) if self._gap else None,
            }
            scores = []
            measured = self._measured(edited, reconstruction_CHW, original_CHW)
            for position, (edit, own) in enumerate(zip(edited.edits, measured, strict=True)):
                metrics = shared | own
                scores.append(Score(position, edit, metrics, first_broken(self._rules, metrics)))
            spent = edited.network_evaluations + (self._gap.evaluations if self._gap else 0)
            yield Evaluated(edited, tuple(scores), spent)

    def _measured(
        self, edited: Edited, reconstruction_CHW: Tensor, original_CHW: Tensor
    ) -> Iterator[dict[str, float]]:
        """What each edit has for itself, in their order."""
        before_K = self._read(reconstruction_CHW[None])[0]
        for start in range(0, len(edited.edits), self._batch_size):
            edits = edited.edits[start : start + self._batch_size]
            bytes_BCHW = torch.stack([edit.image_CHW for edit in edits])
            images_BCHW = as_floats(bytes_BCHW.to(self._device))
            mask_BHW = torch.stack([edit.region.mask_HW for edit in edits]).to(self._device)
            changes = edit_changes(images_BCHW, reconstruction_CHW, original_CHW, mask_BHW)
            moved_BK = self._read(images_BCHW) - before_K
            columns = {
                SCORE_PREFIX + name: scorer(original_CHW[None], images_BCHW).tolist()
                for name, scorer in self._scorers.items()
            }
            if self._attributes is not None:
                for k, name in enumerate(self._attributes.columns):
                    columns[CHANGE_PREFIX + name] = moved_BK[:, k].tolist()
            for row, change in enumerate(changes):
                yield change | {name: values[row] for name, values in columns.items()}

    def _read(self, images_BCHW: Tensor) -> Tensor:
        """(B, K) of the asked attributes; (B, 0) where there are none."""
        if self._attributes is None:
            return torch.empty(len(images_BCHW), 0)
        columns = list(self._attributes.columns.values())
        return self._attributes.reader.scores(images_BCHW)[:, columns]
