"""The edits of one shard as columns, named by what they do: what run-level figures are made from.

Shape suffixes: N edits, I images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lib.metrics.bootstrap import Floats, image_seeds, weights
from lib.metrics.columns import CHANGE_PREFIX, FIXED, SCORE_PREFIX

WHOLE = ("l1", "l2", "ssim")
"""Columns of pairs of images that no run made: of the whole image."""
_PREFIXES = (SCORE_PREFIX, CHANGE_PREFIX)

Texts = npt.NDArray[np.object_]
NameOf = Callable[[Mapping[str, Any]], str]
"""What the edits of a row are called within their region; the row has `direction`, `rank` and
`added_directions`, `added_ranks`."""
_NAMED_BY = ("region", "direction", "rank", "added_directions", "added_ranks")


@dataclass(frozen=True, slots=True, eq=False)
class EditRows:
    """Of one shard; everything (N,) in the order of the rows."""

    shard: str
    index_I: npt.NDArray[np.int64]
    """Of its images that have an edit, ascending."""
    weights_IR: Floats
    """Of the bootstrap."""
    seeds_I: npt.NDArray[np.uint64]
    image_N: npt.NDArray[np.intp]
    """Row -> position in `index_I`."""
    region: Texts
    name: Texts
    """region/name: which direction, or combination of them; the name alone without a region."""
    direction: Texts
    """Id; None for SDEdit."""
    single: npt.NDArray[np.bool_]
    """Made by one direction alone."""
    strength: Floats
    metrics: Mapping[str, npt.NDArray[np.float32]]
    """Column -> values, NaN for null."""
    filtered: Texts
    """The first rule that the edit breaks, or None."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the classifier's outputs whose change was measured."""
        changes = (name for name in self.metrics if name.startswith(CHANGE_PREFIX))
        return tuple(name.removeprefix(CHANGE_PREFIX) for name in changes)


def edit_rows(shard: str, table: pa.Table, name_of: NameOf) -> EditRows:
    """The columns of `schemas.EDITS` (of any run, with any columns of its own) of one shard."""
    index_I, image_N = np.unique(table["index"].to_numpy(), return_inverse=True)
    seeds_I = image_seeds(shard, index_I.tolist())
    names: dict[tuple[Any, ...], str] = {}
    columns = [table[column].to_pylist() for column in _NAMED_BY]
    name = np.empty(table.num_rows, object)
    for row, values in enumerate(zip(*columns, strict=True)):
        key = tuple(map(str, values))
        if key not in names:
            own = name_of(dict(zip(_NAMED_BY, values, strict=True)))
            names[key] = f"{values[0]}/{own}" if values[0] else own
        name[row] = names[key]
    counts = np.array([len(added) for added in columns[3]], int)
    return EditRows(
        shard=shard,
        index_I=index_I.astype(np.int64),
        weights_IR=weights(seeds_I).astype(np.float64),
        seeds_I=seeds_I,
        image_N=image_N,
        region=_texts(columns[0]),
        name=name,
        direction=_texts(columns[1]),
        single=counts == 0,
        strength=table["strength"].to_numpy().astype(np.float64),
        metrics={
            metric: _numbers(table[metric])
            for metric in table.column_names
            if metric in FIXED or metric in WHOLE or metric.startswith(_PREFIXES)
        },
        filtered=_texts(table["filtered"].to_pylist()),
    )


def _texts(values: list[str | None]) -> Texts:
    found = np.empty(len(values), object)
    found[:] = values
    return found


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    return np.asarray(column.fill_null(float("nan")).to_numpy(), np.float32)
