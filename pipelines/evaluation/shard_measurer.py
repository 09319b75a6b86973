"""The worker of an evaluation: it holds the models and measures the pictures of one shard after
another, each into a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from lib.commit_record import CommitDamageError, read_commit_rows
from lib.kernels import settle
from lib.receipts import Failure
from lib.run_folder import RunFolder
from lib.samples import ShardDamage
from lib.storage import redact
from pipelines.config import RunConfig
from pipelines.engine import chosen_device
from pipelines.evaluate_config import Evaluate
from pipelines.evaluation.image_measurer import ImageMeasurer, Measures
from pipelines.evaluation.measured_rows import MeasuredFiles, MeasuredRows
from pipelines.evaluation.run_pictures import Pictures, run_pictures


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


class RunMeasurer:
    """Measures the shards of a run; raises ModelProblem or ConfigProblem where a model cannot be
    used.
    """

    def __init__(self, order: Order) -> None:
        if not isinstance(order.source, RunSource):
            raise TypeError(f"expected the order of a run, got {order.source}")
        settle(1)
        self._files = order.files
        self._measures = order.measures
        self._measurer = ImageMeasurer(self._measures, chosen_device("auto"))
        self._folder = RunFolder(order.source.root)
        self._config = RunConfig.model_validate(self._folder.read_run()["config"])

    def __call__(self, shard: str) -> Receipt:
        """A shard that cannot be read is a problem in the receipt, and nothing is written."""
        try:
            record, table = read_commit_rows(self._folder.commit_url(shard))
            found = run_pictures(self._folder, self._config, record, table)
            rows = measured(found, self._measurer, self._measures.columns)
        except (OSError, CommitDamageError, ShardDamage) as error:
            return Receipt(shard, problem=redact(f"shard {shard}: {error}"))
        self._files.write(shard, rows.table)
        return receipt(shard, rows)


def measured(
    found: Iterable[Pictures | Failure], measurer: ImageMeasurer, columns: tuple[str, ...]
) -> MeasuredRows:
    """The rows of all pictures; what a model cannot read is a failure of its image."""
    rows = MeasuredRows(columns)
    for pictures in found:
        if isinstance(pictures, Failure):
            rows.add_failure(pictures)
            continue
        index, key = pictures.index, pictures.key
        try:
            known = measurer(pictures.original_CHW, pictures.edited_BCHW)
        except ValueError as error:
            rows.add_failure(Failure("", index, key, "evaluate", "unsupported", str(error)))
            continue
        if known.original_E is not None:
            rows.add_original(index, key, known.original_E)
        for place, edit in enumerate(pictures.edits):
            own_E = None if known.edited_BE is None else known.edited_BE[place]
            rows.add_edit(index, key, edit, known.values[place], own_E)
    return rows


def receipt(shard: str, rows: MeasuredRows) -> Receipt:
    """Of what was written."""
    edits = [row for row in rows.rows if row.get("edit") is not None]
    failed = sum("kind" in row for row in rows.rows)
    images = len({row["index"] for row in edits})
    return Receipt(shard, images, len(edits), failed)
