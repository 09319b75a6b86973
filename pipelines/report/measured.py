"""What `deltah evaluate` measured of each edit's stored picture, beside the columns of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from pipelines.evaluation.outputs import FOLDER, ROWS
from pipelines.report.measures import measures_of
from pipelines.report.numbers import Floats, RunNumbers

_SUFFIX = ".parquet"
_IDENTITY_LENGTH = 16
_PLACE = ("index", "edit")
_NO_NUMBERS = frozenset({"index", "key", "edit", "stage", "kind", "message", "embedding"})
_READERS = 8


def add_measured(folder: RunFolder, numbers: RunNumbers, config: Mapping[str, Any]) -> list[str]:
    """Append the measured columns to `numbers.edits`, NaN where an edit has none, and name them in
    `numbers.measures`; returns what could not be read.

    Of several measurements (each has an identity in its files' names) that of the most shards.
    """
    if not numbers.keys:
        return []
    names = storage.list_names(folder.url(FOLDER, ROWS))
    files = [name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)]
    counted = Counter(name[-_IDENTITY_LENGTH:] for name in files)
    if not counted:
        return []
    identity = max(counted, key=lambda each: (counted[each], each))
    ends = f"-{identity}"
    there = {name.removesuffix(ends) for name in files if name.endswith(ends)}
    places = numbers.shard_rows()
    chosen = [shard for shard in places if shard in there]

    def read(shard: str) -> pa.Table | str:
        url = folder.url(FOLDER, ROWS, f"{shard}{ends}{_SUFFIX}")
        try:
            return _read(url)
        except (pa.ArrowException, OSError, KeyError) as error:
            return f"{FOLDER}/{ROWS}/{shard}{ends}{_SUFFIX} cannot be read: {_plain(error)}"

    columns: dict[str, Floats] = {}
    notices = []
    with ThreadPoolExecutor(_READERS) as pool:
        for shard, found in zip(chosen, pool.map(read, chosen), strict=True):
            if isinstance(found, str):
                notices.append(found)
            else:
                _fill(columns, numbers, places[shard], found)
    for name, values in columns.items():
        if name not in numbers.edits.column_names:
            numbers.edits = numbers.edits.append_column(name, pa.array(values))
    numbers.measures = [
        measure
        for measure in measures_of(numbers.edits.schema, config)
        if np.isfinite(numbers.column(measure.name)).any()
    ]
    return notices


def _read(url: str) -> pa.Table:
    """The edits of a measured file without their embeddings."""

    def read(fs: Any, path: str) -> pa.Table:
        with fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            own = [name for name in parquet.schema_arrow.names if name not in _NO_NUMBERS]
            return parquet.read(columns=[*_PLACE, *own], use_threads=False)

    table = storage.ask(url, read)
    return table.filter(table["edit"].is_valid())


def _fill(
    columns: dict[str, Floats],
    numbers: RunNumbers,
    rows: slice,
    found: pa.Table,
) -> None:
    """Put the values of a shard at the rows of its edits."""
    places = zip(*(numbers.edits[name][rows].to_pylist() for name in _PLACE), strict=True)
    row_of = {place: rows.start + number for number, place in enumerate(places)}
    measured = list(zip(*(found[name].to_pylist() for name in _PLACE), strict=True))
    kept = np.array([place in row_of for place in measured], bool)
    target = np.array([row_of[place] for place in measured if place in row_of], np.int64)
    for name in found.column_names:
        if name in _PLACE:
            continue
        values = columns.setdefault(
            name, np.full(numbers.edits.num_rows, np.nan, np.float32)
        )  # fmt: skip
        values[target] = np.asarray(found[name].to_numpy(), np.float32)[kept]


def _plain(error: Exception) -> str:
    return storage.redact(str(error))
