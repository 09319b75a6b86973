"""The worker of an evaluation: it holds the models and measures the pictures of one shard after
another, each into a file of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from lib.files.samples import ShardDamage
from lib.files.storage import redact
from lib.ledger.commit_record import CommitDamageError, read_commit_rows
from lib.ledger.run_folder import RunFolder
from lib.models.kernels import settle
from lib.receipts import Failure
from pipelines.config import RunConfig
from pipelines.engine import chosen_device
from pipelines.evaluation.image_measurer import ImageMeasurer
from pipelines.evaluation.measured_rows import MeasuredRows
from pipelines.evaluation.orders import Order, Receipt, RunSource
from pipelines.evaluation.run_pictures import Pictures, run_pictures


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
