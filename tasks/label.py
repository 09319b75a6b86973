"""The label stage: a score for every label of every image, from the shard or from a classifier."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import torch
from torch import Tensor

from lib.records import Failure, Labelled, Observed, Sample

_SIDE_FILE = "json"


class Scorer(Protocol):
    """An image classifier, see `lib.models.image_classifier`."""

    def scores(self, image_BCHW: Tensor) -> Tensor:
        """(B, K) of images in [-1, 1]."""
        ...


@dataclass(frozen=True, slots=True)
class FieldSource:
    """A label that is a key of the sample's `.json`."""

    key: str


@dataclass(frozen=True, slots=True)
class ClassSource:
    """A label that is a column of the classifier's scores."""

    column: int


class Labeller:
    """Scores images in micro-batches cut by position; without a label every image has none."""

    def __init__(
        self,
        labels: Mapping[str, FieldSource | ClassSource],
        *,
        classifier: Scorer | None,
        batch_size: int,
    ) -> None:
        self._labels = dict(sorted(labels.items()))
        self._classifier = classifier
        """Needed where a label is a ClassSource."""
        self._batch_size = batch_size

    def __call__(
        self, items: Iterable[Observed], reject: Callable[[Failure], None]
    ) -> Iterator[Labelled]:
        """Rejects nothing: a label that is missing, or is no finite number, is NaN for that
        sample.
        """
        for _, batch in groupby(items, key=lambda i: i.sample.index // self._batch_size):
            observed = list(batch)
            scores_BK = self._scores([item.sample for item in observed])
            for item, scores_K in zip(observed, scores_BK, strict=True):
                fields = _fields(item.sample)
                yield Labelled(
                    item,
                    {
                        label: _number(fields.get(source.key))
                        if isinstance(source, FieldSource)
                        else _number(scores_K[source.column])
                        for label, source in self._labels.items()
                    },
                )

    @torch.no_grad()
    def _scores(self, samples: list[Sample]) -> list[list[float]]:
        if self._classifier is None:
            return [[] for _ in samples]
        images_BCHW = torch.stack([sample.image_CHW for sample in samples])
        found: list[list[float]] = self._classifier.scores(images_BCHW).tolist()
        return found


def _fields(sample: Sample) -> Mapping[str, Any]:
    """What the sample's `.json` says; nothing where it says nothing that can be read."""
    try:
        found = json.loads(sample.files.get(_SIDE_FILE, b"{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    if not isinstance(value, bool | int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan
