"""What an evaluation leaves: two tables and a JSON file, with stable bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from lib.files import parquet, schemas, storage
from lib.ledger.run_folder import RunFolder
from lib.metrics.disentanglement import Row
from lib.metrics.linearity import OF_ATTRIBUTE, Dials
from lib.receipts import Failure
from pipelines.evaluation.figures import FigureRow

FOLDER = "evaluation"
FIGURES, MATRIX, SPREAD, ERRORS = (
    "figures.parquet", "disentanglement.parquet", "spread.json", "errors.parquet",
)  # fmt: skip
ROWS, PLOTS = "rows", "plots"

_INTERVAL = [("low", pa.float64()), ("high", pa.float64())]
FIGURE_COLUMNS = pa.schema(
    [
        pa.field("scope", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        *(pa.field(name, kind) for name, kind in _INTERVAL),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
    ]
)
"""scope: `all`, a region, or region/direction; low, high: 95 % interval, null where there is none;
count: edits, images or directions that the value comes from.
"""
MATRIX_COLUMNS = pa.schema(
    [
        pa.field("edit", pa.string(), nullable=False),
        pa.field("attribute", pa.string(), nullable=False),
        pa.field("effect", pa.float64()),
        *(pa.field(name, kind) for name, kind in _INTERVAL),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("target", pa.bool_(), nullable=False),
        pa.field("linearity", pa.float64()),
    ]
)
"""effect: `lib.metrics.disentanglement.effects`; target: whether this is the attribute that the
edit is named after, or else changes most; linearity: correlation of the attribute's change with
the strength.
"""


def evaluation_folder(root: str) -> str:
    """Of a run."""
    return RunFolder(root).url(FOLDER)


def write_figures(folder: str, rows: Sequence[FigureRow]) -> None:
    """figures.parquet."""
    table = pa.Table.from_pylist(
        [
            {"scope": r.scope, "metric": r.metric, "unit": r.unit, "count": r.figure.count,
             "value": known(r.figure.value), "low": known(r.figure.low),
             "high": known(r.figure.high)}
            for r in rows
        ],
        schema=FIGURE_COLUMNS,
    )  # fmt: skip
    storage.replace(storage.join(folder, FIGURES), parquet.encode(table))


def write_matrix(folder: str, matrix: Sequence[Row], dials: Dials) -> None:
    """disentanglement.parquet; taken away where nothing was classified."""
    url = storage.join(folder, MATRIX)
    if not matrix:
        storage.delete(url)
        return
    values: list[dict[str, Any]] = []
    for row in matrix:
        for attribute, figure in row.effects.items():
            linear = dials.get((row.edit, OF_ATTRIBUTE + attribute))
            values.append(
                {"edit": row.edit, "attribute": attribute, "effect": known(figure.value),
                 "low": known(figure.low), "high": known(figure.high), "count": figure.count,
                 "target": attribute == row.target,
                 "linearity": None if linear is None else known(linear.mean)}
            )  # fmt: skip
    storage.replace(url, parquet.encode(pa.Table.from_pylist(values, schema=MATRIX_COLUMNS)))


def write_spread(folder: str, spread: Mapping[str, Any]) -> None:
    """spread.json; taken away where no embedding was configured."""
    url = storage.join(folder, SPREAD)
    if not spread:
        storage.delete(url)
        return
    text = json.dumps(spread, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    storage.replace(url, text.encode())


def write_errors(folder: str, failures: Sequence[Failure]) -> None:
    """errors.parquet, sorted by shard and index; taken away where everything was measured."""
    url = storage.join(folder, ERRORS)
    if not failures:
        storage.delete(url)
        return
    order = sorted(failures, key=lambda f: (f.shard, -1 if f.index is None else f.index, f.kind))
    table = pa.Table.from_pylist([asdict(failure) for failure in order], schema=schemas.ERRORS)
    storage.replace(url, parquet.encode(table))


def known(value: float) -> float | None:
    """The value itself; None for what is no finite number."""
    return value if math.isfinite(value) else None
