"""What the directions files say of the directions that a run found, for the report."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from pipelines.report.numbers import spread

MAX_FILES = 64
"""Directions files that are opened; the vectors in them are not read."""

_LEFT_OUT = ("vector", "timesteps", "window", "parents", "parameters")
_COLUMNS = ("region", "rank", "singular_value", "gap", "converged", "jvp_count", "vjp_count")


@dataclass(frozen=True, slots=True)
class DirectionGroup:
    """The directions of one region and rank; medians over images, with the quartiles around
    them.
    """

    region: str
    rank: int
    directions: int
    singular_value: tuple[float, float, float]
    gap: tuple[float, float, float]
    converged: float
    """Share of the directions."""
    jvp_count: float
    """Median spent on an image's regions together."""
    vjp_count: float


def read_directions(
    folder: RunFolder, names: Sequence[str]
) -> tuple[pa.Table | None, int, list[str]]:
    """(directions without their vectors, files read, what could not be read), from files under
    directions/.
    """
    notices = []
    tables = []
    for name in spread(names, MAX_FILES):
        try:
            tables.append(_read_columns(folder.url("directions", name)))
        except (pa.ArrowException, OSError, KeyError) as error:
            notices.append(
                f"directions/{name} cannot be read, so its directions are not counted:"
                f" {storage.redact(str(error))}"
            )
    whole = pa.concat_tables(tables, promote_options="default") if tables else None
    return whole, len(tables), notices


def direction_groups(found: pa.Table | None) -> list[DirectionGroup]:
    """The directions by region and rank."""
    rows: defaultdict[tuple[str, int], list[tuple[float, ...]]] = defaultdict(list)
    columns = [found[name].to_pylist() for name in _COLUMNS] if found is not None else []
    for region, rank, *values in zip(*columns, strict=True):
        rows[region, rank].append(tuple(math.nan if v is None else float(v) for v in values))
    return [_group(*key, rows[key]) for key in sorted(rows)]


def _read_columns(url: str) -> pa.Table:
    def read(fs: Any, path: str) -> pa.Table:
        with fs.open(path, "rb") as file, pq.ParquetFile(file) as parquet:
            names = [name for name in parquet.schema_arrow.names if name not in _LEFT_OUT]
            missing = set(_COLUMNS) - set(names)
            if missing:
                raise KeyError(f"expected the columns {sorted(missing)}")
            return parquet.read(columns=names, use_threads=False).replace_schema_metadata(None)

    return storage.ask(url, read)


def _group(region: str, rank: int, rows: list[tuple[float, ...]]) -> DirectionGroup:
    value, gap, converged, jvp, vjp = np.array(rows).T
    return DirectionGroup(
        region=region,
        rank=rank,
        directions=len(rows),
        singular_value=_quartiles(value),
        gap=_quartiles(gap),
        converged=float(converged.mean()),
        jvp_count=float(np.median(jvp)),
        vjp_count=float(np.median(vjp)),
    )


def _quartiles(values: np.ndarray) -> tuple[float, float, float]:
    known = values[~np.isnan(values)]
    if not known.size:  # a method without gaps
        return math.nan, math.nan, math.nan
    low, middle, high = np.percentile(known, (25, 50, 75))
    return float(low), float(middle), float(high)
