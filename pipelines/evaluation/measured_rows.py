"""What was measured of one shard's pictures, as a Parquet file: an evaluation that was killed goes
on behind the files that are there.

Shape suffix: E embedding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lib.files import parquet, storage
from lib.receipts import Failure
from pipelines.evaluation.outputs import ROWS

_PLACE = (
    pa.field("index", pa.int32()),
    pa.field("key", pa.string()),
    pa.field("edit", pa.int32()),  # null: the original
    pa.field("stage", pa.string()),
    pa.field("kind", pa.string()),  # null: no failure
    pa.field("message", pa.string()),
)
_EMBEDDING = pa.field("embedding", pa.list_(pa.float32()))
_OWN = len(_PLACE)
_FAILURE = ["index", "key", "stage", "kind", "message"]


@dataclass(slots=True)
class MeasuredRows:
    """Rows of one shard, as they come: one an original that was embedded, one an edit, one a
    failure.
    """

    columns: tuple[str, ...]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add_original(self, index: int, key: str, embedding_E: Sequence[float]) -> None:
        """An image before the edit."""
        self.rows.append({"index": index, "key": key, "embedding": embedding_E})

    def add_edit(
        self, index: int, key: str, edit: int, values: Mapping[str, float | None],
        embedding_E: Sequence[float] | None,
    ) -> None:  # fmt: skip
        """One edit of it."""
        place = {"index": index, "key": key, "edit": edit, "embedding": embedding_E}
        self.rows.append({**values, **place})

    def add_failure(self, failure: Failure) -> None:
        """An image that could not be measured."""
        place = {"index": failure.index, "key": failure.key, "stage": failure.stage}
        self.rows.append({**place, "kind": failure.kind, "message": failure.message})

    @property
    def table(self) -> pa.Table:
        """With the place first, then the columns, then the embedding."""
        own = [pa.field(name, pa.float32()) for name in self.columns]
        return pa.Table.from_pylist(self.rows, schema=pa.schema([*_PLACE, *own, _EMBEDDING]))


@dataclass(frozen=True, slots=True)
class MeasuredFiles:
    """The files of one measurement in an evaluation's folder."""

    folder: str
    identity: str
    """Hash of all that decides the numbers; files of another measurement are left alone."""

    def url(self, shard: str) -> str:
        """Of a shard's file."""
        return storage.join(self.folder, ROWS, f"{shard}-{self.identity[:16]}.parquet")

    def done(self) -> set[str]:
        """Shards whose file is there, by one listing."""
        ending = f"-{self.identity[:16]}.parquet"
        names = storage.list_names(storage.join(self.folder, ROWS))
        return {
            name.removesuffix(ending)
            for name in names
            if name.endswith(ending) and not name.startswith(storage.TEMP_PREFIX)
        }

    def write(self, shard: str, table: pa.Table) -> None:
        """Create-only: of two writers the first one counts, and both have the same bytes."""
        try:
            storage.create(self.url(shard), parquet.encode(table))
        except FileExistsError:
            return

    def read(self, shard: str) -> pa.Table:
        """Raises FileNotFoundError, or lib.files.parquet.ParquetError where it is damaged."""
        url = self.url(shard)
        return parquet.decode(storage.read_bytes(url), url)


def own_columns(table: pa.Table) -> list[str]:
    """Names of what was measured."""
    return list(table.column_names[_OWN:-1])


def failures(shard: str, table: pa.Table) -> list[Failure]:
    """The rows that say what could not be measured."""
    chosen = table.filter(table["kind"].is_valid()).select(_FAILURE)
    return [
        Failure(shard, row["index"], row["key"], row["stage"], row["kind"], row["message"])
        for row in chosen.to_pylist()
    ]
