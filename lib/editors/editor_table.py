"""The learned editors of a library: `editors.parquet`, one row an editor, beside their files. No
torch here, so that `plan` and lists read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from lib.editors.editor_record import EditorRecord, from_json
from lib.files import parquet, storage
from lib.problems import ConfigProblem

TABLE, FILES = "editors.parquet", "editors"
"""Names in a library's folder: the table, and the folder of the editors' files."""

_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("id", pa.string(), "hash of what the editor does; 16 hex digits"),
    ("type", pa.string(), "direction, direction_fn, rectifier or model_delta"),
    ("label", pa.string(), "what it was called when it was trained"),
    ("region", pa.string(), "the region it is to change; `image` where it is tied to none"),
    ("purpose", pa.string(), "editing, or reconstruction: a rectifier that makes no edit"),
    ("method", pa.string(), "asyrp, rectifier, diffusionclip or diffusionclip_lora"),
    ("model", pa.string(), "sha256 of the weights it belongs to"),
    ("h_layer", pa.string(), "before, middle or after the mid block"),
    ("timesteps", pa.list_(pa.int32()), "at which it was trained, from the highest down"),
    ("window", pa.list_(pa.int32()), "highest and lowest timestep to apply it at"),
    ("h_norms", pa.list_(pa.float64()), "the model's mean norm of h at the timesteps"),
    ("lengths", pa.list_(pa.float64()), "of a direction: length of each step, in h_norms"),
    ("unit_strength", pa.float64(), "factor on what was learned that strength 1 means"),
    ("shape", pa.list_(pa.int32()), "of a direction (S, C, Y, X), of a function's h (C, Y, X)"),
    ("architecture", pa.string(), "from which the network is built again, JSON"),
    ("parameters", pa.string(), "objective and schedule of the training, JSON"),
    ("data_sha256", pa.string(), "of the names and contents of the training's shards"),
    ("images", pa.int32(), "that it was trained on"),
    ("steps", pa.int32(), "optimizer steps"),
    ("losses", pa.string(), "term -> means over the first and last tenth of the steps, JSON"),
    ("fingerprint", pa.string(), "of the training's config"),
    ("parents", pa.list_(pa.string()), "ids of what it was trained on top of"),
)
_JSON = ("architecture", "parameters", "losses")

SCHEMA = pa.schema(
    [pa.field(name, kind, nullable=False) for name, kind, _ in _COLUMNS],
    metadata={"deltah.schema": "editors", "deltah.schema_version": "1"},
)
"""Of editors.parquet."""

EDITOR_MEANINGS = {name: meaning for name, _, meaning in _COLUMNS}
"""Column -> what it says, for the documentation."""


def write_editor_rows(root: str, records: Iterable[EditorRecord]) -> None:
    """Write the table in place of the one that is there, ordered by label, type and id."""
    ordered = sorted(records, key=lambda r: (r.label, r.type, r.id))
    rows = []
    for record in ordered:
        row = record.to_json()
        rows.append(row | {name: json.dumps(row[name], sort_keys=True) for name in _JSON})
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    storage.replace(storage.join(root, TABLE), parquet.encode(table))


def read_editor_rows(root: str) -> tuple[EditorRecord, ...]:
    """The editors of the library at `root`, in the table's order; none where there is no table.

    Raises:
        ConfigProblem: the table is damaged or of another release.
    """
    url = storage.join(root, TABLE)
    try:
        rows: list[dict[str, Any]] = parquet.decode(storage.read_bytes(url), url).to_pylist()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except parquet.ParquetError as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected the table of a library's editors: {error}"
        ) from error
    where = storage.redact(url)
    try:
        plain = [row | {name: json.loads(row[name]) for name in _JSON} for row in rows]
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigProblem(f"{where}: expected editors, got something else: {error}") from error
    return tuple(from_json(row, where) for row in plain)


def editor_url(root: str, identity: str) -> str:
    """The file of an editor of the library at `root`."""
    return storage.join(root, FILES, f"{identity}.safetensors")


def ids_of(records: Sequence[EditorRecord]) -> list[str]:
    """Their ids, in order."""
    return [record.id for record in records]
