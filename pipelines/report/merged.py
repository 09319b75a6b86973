"""What was learned from all images of a run, for the report."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.files import storage
from lib.ledger.merged_directions import FILE_NAME
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import not_learned, read_index

MAX_ROWS = 300


@dataclass(frozen=True, slots=True)
class MergedRow:
    """One direction; the vectors are not read."""

    id: str
    method: str
    label: str | None
    rank: int
    timesteps: list[int]
    singular_value: float
    gap: float | None
    support: int


def read_merged(folder: RunFolder) -> tuple[list[MergedRow], int, list[str]]:
    """(the first rows of merged/directions.parquet, how many there are more, notices: what could
    not be read, or not be learned).
    """
    notices: list[str] = []
    try:
        index = read_index(folder)
    except (OSError, ValueError) as error:
        return [], 0, [storage.redact(str(error))]
    if index is None:
        return [], 0, []
    notices += [f"{text[0].upper()}{text[1:]}." for text in not_learned(index)]
    if not any(file["name"] == FILE_NAME for file in index["merged"]):
        return [], 0, notices
    url = folder.url("merged", FILE_NAME)
    names = [field.name for field in fields(MergedRow)]
    try:
        table = storage.ask(url, lambda fs, path: _read(fs, path, names))
    except (pa.ArrowException, OSError) as error:
        reason = storage.redact(str(error))
        return [], 0, [*notices, f"merged/{FILE_NAME} cannot be read: {reason}"]
    rows = [MergedRow(**row) for row in table.select(names).slice(0, MAX_ROWS).to_pylist()]
    return rows, max(0, table.num_rows - MAX_ROWS), notices


def _read(fs: Any, path: str, names: list[str]) -> pa.Table:
    with fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
        return parquet.read(columns=names, use_threads=False)
