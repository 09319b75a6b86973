"""The rows of a run with what was measured of its pictures beside them, and the rules of an
evaluation applied to both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lib.files.parquet import ParquetError
from lib.files.storage import redact
from lib.metrics.columns import FIXED
from lib.metrics.rules import Rule, first_broken
from lib.receipts import Failure
from pipelines.evaluation.figures import FigureRow
from pipelines.evaluation.measured_rows import MeasuredFiles, failures, own_columns
from pipelines.evaluation.spread import Spread


@dataclass(slots=True)
class Joined:
    """Reads the measured file of every shard that passes, once."""

    files: MeasuredFiles | None
    """None: nothing was measured of the pictures."""
    rules: tuple[Rule, ...]
    """Instead of those of the run; empty: those of the run stay."""
    embedding: str | None
    spread: Spread = field(default_factory=Spread)
    failures: list[Failure] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __call__(self, shard: str, table: pa.Table) -> pa.Table:
        """The table with further columns (null where nothing was measured) and other `filtered`."""
        if self.files is not None:
            table = self._with_measured(shard, table, self.files)
        return _filtered(table, self.rules) if self.rules else table

    def figures(self) -> Iterator[FigureRow]:
        """Distances between the sets of images."""
        for scope, metric, figure in self.spread.figures():
            yield FigureRow(scope, metric, figure)

    def record(self) -> dict[str, Any]:
        """What spread.json holds; empty without an embedding."""
        return self.spread.record(self.embedding) if self.embedding is not None else {}

    def _with_measured(self, shard: str, table: pa.Table, files: MeasuredFiles) -> pa.Table:
        try:
            measured = files.read(shard)
        except (FileNotFoundError, ParquetError) as error:
            self.notices.append(
                f"nothing measured of the pictures of shard {shard}: {redact(str(error))}"
            )
            return table
        self.failures += failures(shard, measured)
        places = list(zip(table["index"].to_pylist(), table["edit"].to_pylist(), strict=True))
        regions = dict(zip(places, table["region"].to_pylist(), strict=True))
        self.spread.add(shard, measured, regions)
        rows = {(row["index"], row["edit"]): row for row in _numbers(measured)}
        for name in own_columns(measured):
            values = [rows.get(place, {}).get(name) for place in places]
            table = table.append_column(name, pa.array(values, pa.float32()))
        return table


def _numbers(measured: pa.Table) -> list[dict[str, Any]]:
    edits = measured.filter(measured["edit"].is_valid())
    found: list[dict[str, Any]] = edits.select(
        ["index", "edit", *own_columns(measured)]
    ).to_pylist()
    return found


def _filtered(table: pa.Table, rules: tuple[Rule, ...]) -> pa.Table:
    names = list(dict.fromkeys(rule.metric for rule in rules))
    rows = table.select([n for n in names if n in table.column_names]).to_pylist()
    nothing = dict.fromkeys((*FIXED, *names))
    broken = [first_broken(rules, nothing | row) for row in rows]
    place = table.column_names.index("filtered")
    return table.set_column(place, table.schema.field("filtered"), [pa.array(broken, pa.string())])
