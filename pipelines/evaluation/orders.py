"""The order for the workers of an evaluation, and their receipts: small, and light to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lib.metrics.columns import CHANGE_PREFIX, SCORE_PREFIX
from pipelines.evaluate_config import Evaluate
from pipelines.evaluation.measured_rows import MeasuredFiles


@dataclass(frozen=True, slots=True)
class Measures:
    """What to measure of pictures."""

    evaluate: Evaluate
    """Its scores and attributes."""
    embedding: str | None
    """An image encoder (folder, or `embedded`), for distances between sets; None: no distances."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the numbers of an edit."""
        attributes = self.evaluate.attributes
        return (
            *(SCORE_PREFIX + name for name in sorted(self.evaluate.scores)),
            *(CHANGE_PREFIX + name for name in (attributes.names if attributes else ())),
        )

    def __bool__(self) -> bool:
        """Whether pictures must be read at all."""
        return bool(self.columns) or self.embedding is not None


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a worker says of one shard."""

    shard: str
    images: int = 0
    edits: int = 0
    failed: int = 0
    """Images that could not be measured; each is a row in errors.parquet."""
    problem: str | None = None
    """Why nothing was measured: the same command tries this shard again."""


@dataclass(frozen=True, slots=True)
class RunSource:
    """The pictures of a run."""

    root: str


@dataclass(frozen=True, slots=True)
class PairSource:
    """Samples before and after editing, matched by key."""

    originals: tuple[str, ...]
    """URLs of their shards, sorted."""
    edited: tuple[tuple[str, str], ...]
    """(name, URL) of theirs, sorted."""
    masks: str | None
    """Extension of the side file that says where the edit should be."""


@dataclass(frozen=True, slots=True)
class Order:
    """All that a worker needs to know; small, and the same for all shards."""

    evaluate_json: str
    embedding: str | None
    folder: str
    """Of the evaluation."""
    identity: str
    source: RunSource | PairSource

    @property
    def measures(self) -> Measures:
        """What to measure."""
        return Measures(Evaluate.model_validate_json(self.evaluate_json), self.embedding)

    @property
    def files(self) -> MeasuredFiles:
        """Where it is left."""
        return MeasuredFiles(self.folder, self.identity)


class Measurer(Protocol):
    """Of any kind of shards."""

    def __call__(self, shard: str) -> Receipt:
        """Measure one shard and store it."""
        ...
