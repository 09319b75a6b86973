"""What a library says of the directions that a run would use: everything but the vectors, without
torch, so that `plan` refuses what the run would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.directions.edit_query import Candidate
from lib.directions.library_files import library_files
from lib.editors.editor_record import NETWORK_SPACE
from lib.files import storage
from lib.problems import ConfigProblem

_COLUMNS = (
    "id", "region", "rank", "method", "label", "score", "roir", "space", "h_layer", "model",
    "timesteps", "window",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LibraryFact:
    """One direction of a library, and where it lies in it."""

    url: str
    row: int
    id: str
    candidate: Candidate
    space: str
    h_layer: str
    model: str
    """SHA-256 of the weights."""
    shape: tuple[int, ...]
    """(C, Y, X) of one step of its vector."""
    timesteps: tuple[int, ...]
    window: tuple[int, int] | None
    type: str = "direction"
    """Of a learned editor another (`lib.editors.editor_record`)."""


def library_facts(
    path: str,
    *,
    ids: Sequence[str],
    regions: Sequence[str],
    max_rank: int,
    max_directions: int,
    option: str = "discover.path",
    optional: bool = False,
) -> tuple[LibraryFact, ...]:
    """The matching directions of a library, in file order, the same content once.

    With `ids`, exactly those; else those of `regions` up to `max_rank` and `max_directions`.
    `option` is what errors call the library. `optional`: it may have none, because it has learned
    editors.

    Raises:
        ConfigProblem: none matches, an id is missing, or a file holds no directions.
    """
    found: dict[str, LibraryFact] = {}
    for url in library_files(path, option, optional=optional):
        for fact in _facts(url, option):
            row = fact.candidate
            if fact.id in ids or (not ids and row.region in regions and row.rank < max_rank):
                found.setdefault(fact.id, fact)
    missing = sorted(set(ids) - set(found))
    if (missing or not found) and not optional:
        wanted = f"ids {missing}" if missing else f"regions {list(regions)}, max_rank {max_rank}"
        raise ConfigProblem(f"{option}: the library {storage.redact(path)} has no {wanted}")
    return tuple(found.values())[: None if ids else max_directions]


def refuse_foreign(
    facts: Sequence[LibraryFact],
    *,
    model: str,
    h_layer: str,
    h_shape: tuple[int, int, int],
    latent_shape: tuple[int, int, int],
    option: str = "discover.path",
) -> None:
    """Refuse directions that cannot be applied: `h_shape` is (C, Y, X) of the model's h and
    `latent_shape` of its x_t.

    Raises:
        ConfigProblem: one belongs to another model, layer or shape.
    """
    for fact in facts:
        space = fact.space
        if space == NETWORK_SPACE:
            if fact.model != model:
                raise ConfigProblem(
                    f"{option}: {fact.type} {fact.id} is of model {fact.model[:12]}, and this run"
                    f" has model {model[:12]}"
                )
            continue
        expected = latent_shape if space == "x" else h_shape
        layer = h_layer if space == "x" else fact.h_layer
        if (fact.model, layer, fact.shape) != (model, h_layer, expected):
            raise ConfigProblem(
                f"{option}: direction {fact.id} is of model {fact.model[:12]}, layer"
                f" {fact.h_layer}, {space} {fact.shape}; this run has model {model[:12]}, layer"
                f" {h_layer}, {space} {expected}"
            )


def _facts(url: str, option: str) -> list[LibraryFact]:
    try:
        with pq.ParquetFile(pa.BufferReader(storage.read_bytes(url))) as file:
            schema = file.schema_arrow
            lacking = sorted({*_COLUMNS, "vector"} - set(schema.names))
            if lacking:
                raise ConfigProblem(
                    f"{option}: expected directions in {storage.redact(url)}, but it has no column"
                    f" {lacking[0]}"
                )
            rows = file.read(columns=list(_COLUMNS), use_threads=False).to_pylist()
    except pa.ArrowException as error:
        raise ConfigProblem(
            f"{option}: expected a directions Parquet file at {storage.redact(url)}: {error}"
        ) from error
    kind = schema.field("vector").type
    shape = tuple(kind.shape[1:]) if isinstance(kind, pa.FixedShapeTensorType) else ()
    return [_fact(url, number, row, shape) for number, row in enumerate(rows)]


def _fact(url: str, number: int, row: dict[str, Any], shape: tuple[int, ...]) -> LibraryFact:
    asked = ("region", "rank", "method", "id", "label", "score", "roir")
    return LibraryFact(
        url=url,
        row=number,
        id=row["id"],
        candidate=Candidate(**{name: row[name] for name in asked}),
        space=row["space"],
        h_layer=row["h_layer"],
        model=row["model"],
        shape=shape,
        timesteps=tuple(row["timesteps"]),
        window=None if row["window"] is None else (row["window"][0], row["window"][1]),
    )
