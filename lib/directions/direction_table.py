"""Directions to and from Parquet, the exchange format of direction libraries."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lib.direction import Direction, Scores
from lib.directions.library_facts import library_facts, refuse_foreign
from lib.editors.editor_record import DIRECTION
from lib.files import schemas, storage

_PLAIN = (
    "id", "space", "h_layer", "model", "method", "region", "mask_sha256", "shard", "index", "key",
    "rank", "singular_value", "gap", "residual", "angle", "converged", "jvp_count", "vjp_count",
    "sign_rule", "h_norm", "unit_strength", "support", "spread", "label",
)  # fmt: skip
_SCORES = (
    "score", "roir", "in_change", "strength", "consistency", "linearity", "symmetry", "factor",
    "factor_change", "other_change",
)  # fmt: skip


def to_table(directions: Sequence[Direction], dtype: str) -> pa.Table:
    """A table of `schemas.directions`; all vectors must have one shape."""
    steps, channels, height, width = directions[0].vector_SCYX.shape
    shape = (steps, channels, height, width)
    schema = schemas.directions(shape, dtype)
    vectors = np.stack([d.vector_SCYX.numpy() for d in directions]).astype(dtype)
    columns: dict[str, pa.Array] = {
        name: pa.array([getattr(d, name) for d in directions], schema.field(name).type)
        for name in _PLAIN
    }
    flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), int(np.prod(shape)))
    columns["vector"] = pa.ExtensionArray.from_storage(schema.field("vector").type, flat)
    columns["parameters"] = pa.array([json.dumps(d.parameters, sort_keys=True) for d in directions])
    columns["timesteps"] = pa.array([d.timesteps for d in directions], pa.list_(pa.int32()))
    columns["window"] = pa.array([d.window for d in directions], pa.list_(pa.int32()))
    scores = [d.scores for d in directions]
    for name in _SCORES:
        values = [None if s is None else getattr(s, name) for s in scores]
        columns[name] = pa.array(values, schema.field(name).type)
    columns["scored_images"] = pa.array([s and s.images for s in scores], pa.int32())
    columns["parents"] = pa.array([d.parents for d in directions], pa.list_(pa.string()))
    columns["lengths"] = pa.array([d.lengths for d in directions], pa.list_(pa.float32()))
    columns["type"] = pa.array([DIRECTION] * len(directions))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def from_table(table: pa.Table) -> Iterator[Direction]:
    """The directions of a table written by `to_table`, in its order."""
    if not table.num_rows:
        return
    vectors = table.column("vector").combine_chunks().to_numpy_ndarray().astype(np.float32)
    for vector, row in zip(vectors, table.drop_columns("vector").to_pylist(), strict=True):
        yield Direction(
            vector_SCYX=torch.from_numpy(vector),
            parameters=json.loads(row["parameters"]),
            timesteps=tuple(row["timesteps"]),
            parents=tuple(row["parents"]),
            lengths=tuple(row["lengths"]),
            window=None if row["window"] is None else (row["window"][0], row["window"][1]),
            scores=_scores(row),
            **{name: row[name] for name in _PLAIN},
        )


def _scores(row: Mapping[str, Any]) -> Scores | None:
    if row["score"] is None:
        return None
    return Scores(images=row["scored_images"], **{name: row[name] for name in _SCORES})


def read_library(
    path: str,
    *,
    ids: Sequence[str],
    regions: Sequence[str],
    max_rank: int,
    max_directions: int,
    model: str,
    h_layer: str,
    h_shape: tuple[int, int, int],
    latent_shape: tuple[int, int, int],
    option: str = "discover.path",
    optional: bool = False,
) -> tuple[Direction, ...]:
    """The matching directions of a library, in file order, the same content once.

    `h_shape` is (C, Y, X) of h and `latent_shape` of x_t, which directions of x must have.

    With `ids`, exactly those; else those of `regions` up to `max_rank` and `max_directions`.
    `option` is what errors call the library; `optional` as in `library_facts`.

    Raises:
        ConfigProblem: none matches, an id is missing, or they belong to another model, layer or h
            shape.
    """
    facts = library_facts(
        path,
        optional=optional,
        ids=ids,
        regions=regions,
        max_rank=max_rank,
        max_directions=max_directions,
        option=option,
    )
    refuse_foreign(
        facts,
        model=model,
        h_layer=h_layer,
        h_shape=h_shape,
        latent_shape=latent_shape,
        option=option,
    )
    found: dict[str, Direction] = {}
    for url in dict.fromkeys(fact.url for fact in facts):
        table = pq.read_table(pa.BufferReader(storage.read_bytes(url)))
        rows = [fact.row for fact in facts if fact.url == url]
        found |= {direction.id: direction for direction in from_table(table.take(rows))}
    return tuple(found[fact.id] for fact in facts)
