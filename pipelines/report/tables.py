"""The tables that can be sorted and searched on the page: every edit, and directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.report.cards import Card
from pipelines.report.chunks import Column, table_files
from pipelines.report.groups import Ints
from pipelines.report.measures import Measure
from pipelines.report.numbers import Floats, RunNumbers

_SHOWN_MEASURES = frozenset({"in_change", "out_change", "roir", "out_ssim", "psnr"})
_EDITS, _DIRECTIONS = "manifest/edits-*.parquet", "directions/*.parquet"
_OF_DIRECTIONS = frozenset({"in_change", "out_change", "roir"})
_MAX_DIRECTIONS = 50_000

_DIRECTION_NUMBERS = (
    ("singular_value", "singular value", "strength of the model's answer, in the method's units",
     True),
    ("gap", "gap", "next singular value over this one; near 1 it is ill-defined", True),
    ("residual", "residual", "of the eigenvalue equation, relative", False),
    ("angle", "angle", "estimated sine of the angle to the true subspace", True),
    ("h_norm", "‖h‖", "the model's mean norm of h: the unit of strength", False),
    ("jvp_count", "JVPs", "forward products for all regions of the image", False),
    ("vjp_count", "VJPs", "reverse products, likewise", False),
    ("support", "images", "images that it comes from", False),
    ("score", "score", "what a library is ranked by", True),
)  # fmt: skip


def edits_table(
    numbers: RunNumbers, cards: tuple[Card, ...], thumbnails: Mapping[int, int]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Head and files of the table of all edits that were read."""
    edits = numbers.edits
    rows = edits.num_rows
    ranks = {key.rank for key in numbers.keys}
    columns = [
        Column("key", "sample", "the sample's key", "text", edits["key"]),
        Column("shard", "shard", "the input shard", "text", edits["shard"], shown=False),
        _whole(edits, "index", "index", "position of the sample in its shard", shown=False),
        Column("region", "region", "what the direction belongs to", "text", edits["region"],
               choice=True),
        _whole(edits, "rank", "rank", "0 is the strongest direction of the region",
               shown=len(ranks) > 1, choice=True),
        Column("direction", "direction", "its id", "id", edits["direction"], shown=False),
        Column("strength", "strength", "in units of the model's mean norm of h", "signed",
               edits["strength"].to_numpy(), choice=True),
    ]  # fmt: skip
    if any(key.learned for key in numbers.keys):
        names = edits["learned"].cast(pa.string())
        names = pc.if_else(pc.equal(names, ""), None, names)
        columns.insert(
            4, Column("", "learned", "the name of the learned editor", "text", names, choice=True)
        )
    if any(key.added for key in numbers.keys):
        columns.append(
            Column("", "with", "what is combined with it", "text", edits["added"], choice=True)
        )
    if any(key.noise >= 0 for key in numbers.keys):
        columns.append(_whole(edits, "noise", "noise", "which of the image's noises", choice=True))
    columns += [_measured(numbers, measure) for measure in numbers.measures]
    if "filtered" in edits.column_names and edits["filtered"].null_count < rows:
        columns.append(
            Column("filtered", "filtered", "the first rule that the edit does not fulfil", "text",
                   edits["filtered"], choice=True)
        )  # fmt: skip
    card_N = np.full(rows, -1, np.int32)
    for number, card in enumerate(cards):
        card_N[list(card.rows)] = number
    thumbnail_N = np.full(rows, -1, np.int32)
    if thumbnails:
        thumbnail_N[list(thumbnails)] = list(thumbnails.values())
    return table_files("edits", columns, {"card": card_N, "thumbnail": thumbnail_N}, _EDITS)


def directions_table(
    found: pa.Table | None, numbers: RunNumbers
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Head and files of the table of directions: those of `found` (files under directions/, of
    single images), or else those that the edits name, with the medians of their edits. Learned
    editors stand first either way.
    """
    learned = sorted({(k.learned, k.region, k.direction) for k in numbers.keys if k.learned})
    if found is not None:
        found = found.slice(0, _MAX_DIRECTIONS)
        if learned:
            found = pa.concat_tables([_of_learned(learned), found], promote_options="default")
        rows, columns = _found_columns(found)
    else:
        rows, columns = _named_columns(numbers)
    if not rows:
        return {}, {}
    if learned:
        names = {direction: name for name, _, direction in learned}
        labels = pa.array([names.get(row) for row in rows], pa.string())
        columns.insert(1, Column("", "learned", "the name of a learned editor", "text", labels,
                                 choice=True))  # fmt: skip
    columns += _measured_columns(numbers, rows)
    return table_files("directions", columns, {}, _DIRECTIONS if found is not None else None)


def _found_columns(found: pa.Table) -> tuple[list[str], list[Column]]:
    """(ids, columns) of directions that were found in single images."""
    ranks = found["rank"].unique()
    columns = [
        Column("id", "direction", "its id", "id", found["id"]),
        Column("key", "sample", "the image it was found in", "text", found["key"]),
        Column("shard", "shard", "of the image", "text", found["shard"], shown=False),
        Column("region", "region", "what it changes", "text", found["region"], choice=True),
        _whole(found, "rank", "rank", "0 is the strongest of its region", shown=len(ranks) > 1,
               choice=True),
        Column("method", "method", "how it was found", "text", found["method"], choice=True,
               shown=False),
    ]  # fmt: skip
    for name, label, meaning, shown in _DIRECTION_NUMBERS:
        if name not in found.column_names or found[name].null_count == len(found):
            continue
        values = np.asarray(found[name].to_numpy(), np.float32)
        if pa.types.is_integer(found[name].type):
            columns.append(Column(name, label, meaning, "whole", values, shown))
        else:
            columns.append(Column(name, label, meaning, "number", values, shown))
    words = {True: "yes", False: "no", None: None}
    converged = pa.array([words[each] for each in found["converged"].to_pylist()], pa.string())
    columns.append(Column("", "converged", "whether the angle is within the tolerance",
                          "text", converged, choice=True))  # fmt: skip
    return found["id"].to_pylist(), columns


def _of_learned(learned: Sequence[tuple[str, str, str]]) -> pa.Table:
    """(name, region, id) as rows beside found directions."""
    ids, regions = ([each[n] for each in learned] for n in (2, 1))
    return pa.table({"id": pa.array(ids, pa.string()), "region": pa.array(regions, pa.string())})


def _named_columns(numbers: RunNumbers) -> tuple[list[str], list[Column]]:
    """(ids, columns) of the directions of a library, and the learned editors, that the edits
    name.
    """
    keys = {(key.direction, key.region, key.rank, key.learned)
            for key in numbers.keys if key.direction and not key.added}  # fmt: skip
    ordered = sorted(keys, key=lambda k: (not k[3], k[1], k[2], k[0]))
    named = [key[:3] for key in ordered]
    ids = [direction for direction, _, _ in named]
    columns = [
        Column("direction", "direction", "its id", "id", pa.array(ids, pa.string())),
        Column("region", "region", "what it changes", "text",
               pa.array([region for _, region, _ in named], pa.string()), choice=True),
        Column("rank", "rank", "0 is the strongest of its region", "whole",
               np.array([rank if rank >= 0 else np.nan for _, _, rank in named], np.float32),
               choice=True),
    ]  # fmt: skip
    return ids, columns


def _measured_columns(numbers: RunNumbers, ids: Sequence[str]) -> list[Column]:
    """Medians over the edits of each direction that nothing is combined with."""
    if not numbers.keys:
        return []
    plain = pc.equal(numbers.edits["added"].cast(pa.string()), "")
    names = [m.name for m in numbers.measures if m.is_score or m.name in _OF_DIRECTIONS]
    values = {name: pc.if_else(pc.is_nan(numbers.edits[name]), None, numbers.edits[name])
              for name in names}  # fmt: skip
    edits = pa.table({"direction": numbers.edits["direction"], **values}).filter(plain)
    found = edits.group_by("direction").aggregate(
        [("direction", "count"), *((name, "approximate_median") for name in names)]
    )
    place = {direction: row for row, direction in enumerate(found["direction"].to_pylist())}
    row_D = np.array([place.get(each, -1) for each in ids])
    columns = [Column("", "edits", "of it alone", "whole",
                      _taken(found["direction_count"], row_D))]  # fmt: skip
    labels = {measure.name: measure for measure in numbers.measures}
    for name in names:
        measure = labels[name]
        values_D = _taken(found[f"{name}_approximate_median"], row_D)
        columns.append(
            Column("", measure.label, f"median of its edits: {measure.meaning}", "number", values_D)
        )
    return columns


def _taken(column: pa.ChunkedArray, row_D: Ints) -> Floats:
    """The column's values at rows, NaN at -1."""
    values = np.append(np.asarray(column.to_numpy(), np.float32), np.float32("nan"))
    return values[row_D]


def _measured(numbers: RunNumbers, measure: Measure) -> Column:
    shown = measure.is_score or measure.name in _SHOWN_MEASURES
    values = numbers.column(measure.name)
    return Column(measure.name, measure.label, measure.meaning, "number", values, shown)


def _whole(
    rows: pa.Table, name: str, label: str, meaning: str, *, shown: bool = True, choice: bool = False
) -> Column:
    values = np.asarray(rows[name].to_numpy(), np.float64)
    values = np.where(values < 0, np.nan, values)  # -1: there is none
    return Column(name, label, meaning, "whole", values, shown, choice)
