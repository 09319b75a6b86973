"""What a library folder says of its directions, without their vectors and without torch: for lists
and reports.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.editors.editor_table import TABLE as EDITORS_TABLE
from lib.files import storage
from lib.problems import ConfigProblem

RECORD, TABLE, SHEETS = "library.json", "directions.parquet", "sheets"
"""Names in a library folder; sheets/<id>.webp shows what a scored direction does."""

LIBRARY_VERSION = 1
_MOST_NAMED = 8


def read_record(root: str) -> dict[str, Any]:
    """library.json: version, model, h layer, vector shape, how it was built and scored.

    Raises:
        ConfigProblem: there is no library at `root`, or one of another release.
    """
    url = storage.join(root, RECORD)
    try:
        record = json.loads(storage.read_bytes(url))
        version = record["v"]
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"{storage.redact(root)}: expected a direction library, found no {RECORD} in it; make"
            " one with `deltah library build RUN... --output LIB`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected the record of a direction library, got something"
            f" else ({error})"
        ) from error
    if version != LIBRARY_VERSION:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a library of version {LIBRARY_VERSION}, got"
            f" {version}; build it again with this release"
        )
    return dict(record)


def read_rows(root: str) -> list[dict[str, Any]]:
    """Every column but the vector, one dict a direction, in the order of the library.

    Raises:
        ConfigProblem: there is no library at `root`, or it is empty or damaged; one of learned
            editors alone has no directions, and is none of these.
    """
    read_record(root)
    url = storage.join(root, TABLE)
    if EDITORS_TABLE in storage.list_names(root) and not storage.exists(url):
        return []
    try:
        with pq.ParquetFile(pa.BufferReader(storage.read_bytes(url))) as file:
            names = [name for name in file.schema_arrow.names if name != "vector"]
            rows: list[dict[str, Any]] = file.read(columns=names, use_threads=False).to_pylist()
    except (FileNotFoundError, pa.ArrowException) as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected the table of a direction library: {error}"
        ) from error
    if not rows:
        raise ConfigProblem(f"{storage.redact(root)}: the library holds no direction")
    return rows


def find_id(ids: Sequence[str], given: str, root: str) -> str:
    """The id in `ids` that is `given` or alone begins with it.

    Raises:
        ConfigProblem: none does, or several do.
    """
    found = sorted(
        {i for i in ids if i == given} or {i for i in ids if given and i.startswith(given)}
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigProblem(
            f"{given!r}: expected the id of a direction in {storage.redact(root)}, or its first"
            " digits, but none begins so; `deltah library ls` prints the ids"
        )
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    raise ConfigProblem(
        f"{given!r}: expected the first digits of one direction's id in {storage.redact(root)},"
        f" but {', '.join(found[:_MOST_NAMED])}{more} begin so; give more digits"
    )


def placed(row: Mapping[str, Any]) -> str:
    """Where a row comes from in a few words: its image, or how many images."""
    if row["shard"] is not None and row["support"] == 1:
        return f"{row['shard']} #{row['index']}"
    return "1 image" if row["support"] == 1 else f"{row['support']:,} images"
