"""The models of an evaluation, and what they say of an image and its edits.

Shape suffixes: B edits, C colours, H rows, W columns, K attributes, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.metrics.columns import CHANGE_PREFIX, SCORE_PREFIX
from lib.metrics.embeddings import load_image_encoder
from pipelines.evaluation.orders import Measures
from pipelines.evaluation_stage import load_attributes, load_score

_AT_ONCE = 32
"""Edits: what bounds memory."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of an image and its edits."""

    values: list[dict[str, float | None]]
    """Of every edit, by column."""
    original_E: list[float] | None
    """None without an encoder."""
    edited_BE: list[list[float]] | None


class ImageMeasurer:
    """Loads the models; raises ModelProblem or ConfigProblem for one that cannot be used."""

    def __init__(self, measures: Measures, device: torch.device) -> None:
        evaluate = measures.evaluate
        self._scorers = {n: load_score(evaluate.scores[n], device) for n in sorted(evaluate.scores)}
        given = evaluate.attributes
        self._attributes = load_attributes(given, device) if given else None
        encoder = measures.embedding
        self._encoder = load_image_encoder(encoder, device) if encoder is not None else None

    @torch.no_grad()
    def __call__(self, original_CHW: Tensor, edited_BCHW: Tensor) -> Measured:
        """Everything against the original: a reconstruction is not stored. Raises ValueError for
        images that a model cannot read.
        """
        original_1CHW = original_CHW[None]
        parts = list(edited_BCHW.split(_AT_ONCE))
        values: list[dict[str, float | None]] = [{} for _ in range(len(edited_BCHW))]
        for name, scorer in self._scorers.items():
            scores = [s for part in parts for s in scorer(original_1CHW, part).tolist()]
            for row, score in zip(values, scores, strict=True):
                row[SCORE_PREFIX + name] = score
        for row, changes in zip(values, self._changes(original_1CHW, parts), strict=False):
            row.update(changes)
        if self._encoder is None:
            return Measured(values, None, None)
        edited_BE = torch.cat([self._encoder(part) for part in parts])
        return Measured(values, self._encoder(original_1CHW)[0].tolist(), edited_BE.tolist())

    def _changes(
        self, original_1CHW: Tensor, parts: list[Tensor]
    ) -> Iterator[dict[str, float | None]]:
        if self._attributes is None:
            return
        reader, columns = self._attributes.reader, self._attributes.columns
        before_1K = reader.scores(original_1CHW)
        for part_BCHW in parts:
            for moved_K in (reader.scores(part_BCHW) - before_1K).tolist():
                yield {CHANGE_PREFIX + name: moved_K[k] for name, k in columns.items()}
