"""Tables for the page in columnar chunks, so that the first page of one is there at once and the
rest is loaded when something is sorted or sought.

A column of numbers is base64 of little-endian float32; a column of texts is the chunk's distinct
texts and base64 of int32 positions in them, -1 for none.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.report.script_data import call

CHUNK_ROWS = 5000
_MAX_CHOICES = 60
"""Distinct texts among which the page lets choose; of more it searches."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table on the page."""

    name: str
    """In the files of the run, for SQL; "" where there it is not a column."""
    label: str
    meaning: str
    kind: Literal["text", "number", "whole", "signed", "id"]
    values: pa.ChunkedArray | pa.Array | npt.NDArray[Any]
    shown: bool = True
    """Before the reader chooses columns."""
    choice: bool = False
    """Whether the page offers the distinct values to choose from."""


def table_files(
    table: str,
    columns: Sequence[Column],
    pictures: Mapping[str, npt.NDArray[np.int32]],
    source: str | None,
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """(what the page must know at once, the chunks' files) of a table.

    `pictures` holds columns that the page uses without showing them; `source` names the files of
    the run that have these rows, None where none do.
    """
    columns = _distinct(columns)
    rows = len(columns[0].values) if columns else 0
    count = -(-rows // CHUNK_ROWS)
    files = {}
    for number in range(count):
        start = number * CHUNK_ROWS
        data: dict[str, Any] = {
            column.label: _encoded(column.values[start : start + CHUNK_ROWS]) for column in columns
        }
        for name, values in pictures.items():
            data[f"#{name}"] = _base64(values[start : start + CHUNK_ROWS].astype("<f4"))
        files[f"data/{table}-{number:04d}.js"] = call("deltah.add", table, number, data)
    head = {
        "files": source,
        "rows": rows,
        "chunkRows": CHUNK_ROWS,
        "chunks": [f"data/{table}-{number:04d}.js" for number in range(count)],
        "columns": [_described(column) for column in columns],
    }
    return head, files


def _distinct(columns: Sequence[Column]) -> list[Column]:
    """`columns` with the name of the column for a label that another has before it."""
    labels: set[str] = set()
    found = []
    for column in columns:
        label = column.label if column.label not in labels else column.name
        labels.add(label)
        found.append(replace(column, label=label))
    return found


def _described(column: Column) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": column.name,
        "label": column.label,
        "meaning": column.meaning,
        "kind": column.kind,
        "shown": column.shown,
    }
    if not isinstance(column.values, np.ndarray):
        if column.choice:
            distinct = column.values.unique().to_pylist()
            texts = sorted(text for text in distinct if text is not None)
            described["choices"] = texts if len(texts) <= _MAX_CHOICES else None
            described["hasNone"] = bool(column.values.null_count)
    else:
        values = np.asarray(column.values, np.float64)
        known = values[np.isfinite(values)]
        described["low"] = float(known.min()) if known.size else None
        described["high"] = float(known.max()) if known.size else None
        if column.choice:
            numbers = np.unique(known.astype(np.float32)).tolist()
            described["choices"] = numbers if len(numbers) <= _MAX_CHOICES else None
    return described


def _encoded(values: pa.ChunkedArray | pa.Array | npt.NDArray[Any]) -> Any:
    if isinstance(values, np.ndarray):
        return _base64(values.astype("<f4"))
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if pa.types.is_dictionary(whole.type):
        whole = whole.cast(pa.string())
    found = whole.dictionary_encode()
    code_N = found.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    return {"texts": found.dictionary.to_pylist(), "codes": _base64(code_N.astype("<i4"))}


def _base64(values: npt.NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")
