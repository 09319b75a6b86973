"""Which edits of a run are compared with each other: those of one region, direction and strength,
in all images.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.learned_editors import RANK as LEARNED_RANK
from pipelines.number_texts import signed

Ints = npt.NDArray[np.int64]
_NONE: Mapping[str, str] = MappingProxyType({})
_DIGITS = 8
_ADDED = ("regions", "ranks", "directions", "strengths")
ADDED_COLUMNS = tuple(f"added_{what}" for what in _ADDED)
GROUP_COLUMNS = ("region", "rank", "learned", "shared", "added", "noise", "strength")
"""Columns of the report's table by which edits are grouped, in the order of GroupKey."""


class GroupKey(NamedTuple):
    """Edits that are compared with each other."""

    region: str
    rank: int
    """-1: no direction (SDEdit), or a learned editor."""
    learned: str
    """The name of the learned editor; "": none."""
    direction: str
    """"" where every sample has directions of its own, an id where all share a library's or a
    learned editor.
    """
    added: str
    """What is combined with the direction: `mouth 0 −0.1`; "": nothing."""
    noise: int
    """Of SDEdit: which of an image's noises; -1: none."""
    strength: float

    @property
    def sheet(self) -> GroupKey:
        """What all strengths have in common: the group at strength 0."""
        return self._replace(strength=0.0)

    @property
    def order(self) -> tuple[bool, GroupKey]:
        """Learned editors come before discovered directions."""
        return not self.learned, self

    @property
    def series(self) -> tuple[str, str]:
        """(learned editor, region): what a chart has one colour for. Combinations are those of
        their regions, which are joined by +.
        """
        return ("" if self.added else self.learned), self.region

    @property
    def title(self) -> str:
        """Of its contact sheet, without the direction's id."""
        if self.noise >= 0:
            return f"SDEdit, noise {self.noise}"
        name = self.learned or f"{self.region.split('+')[0]} {self.rank}"
        return f"{name} with {self.added}" if self.added else name


def group_key(row: Mapping[str, Any]) -> GroupKey:
    """The group of a row that has GROUP_COLUMNS."""
    return GroupKey(*(row[name] for name in GROUP_COLUMNS))


def with_groups(rows: pa.Table, *, own: bool, learned: Mapping[str, str] = _NONE) -> pa.Table:
    """`rows` of schemas.EDITS with the columns `learned` and `shared`, and `added` for the lists of
    what is combined, -1 for null ranks and noises, and strengths in plain decimals.

    `own`: every sample has directions of its own, so that their ids do not tell groups apart; those
    of learned editors do. `learned`: id -> name of the run's learned editors.
    """
    nothing = pa.array(np.zeros(rows.num_rows, np.int32), pa.int32())
    blank = pa.DictionaryArray.from_arrays(nothing, pa.array([""]))
    ids = rows["direction"].fill_null("")
    trained_N = pc.equal(rows["rank"], LEARNED_RANK).fill_null(False)
    names = shared = blank
    if pc.any(trained_N).as_py():
        found = zip(ids.to_pylist(), trained_N.to_pylist(), strict=True)
        texts = [_name(i, learned) if trained else "" for i, trained in found]
        names = pa.array(texts, pa.string()).dictionary_encode()
    if not own:
        shared = ids.dictionary_encode()
    elif names is not blank:
        shared = pc.if_else(trained_N, ids, "").dictionary_encode()
    lists = [rows[name] for name in ADDED_COLUMNS]
    combined = bool(rows.num_rows) and len(pc.list_flatten(lists[0])) > 0
    texts = _added(lists, own=own, learned=learned) if combined else []
    added = pa.array(texts, pa.string()).dictionary_encode() if combined else blank
    rows = rows.drop_columns(list(ADDED_COLUMNS))
    for name, column in (("learned", names), ("shared", shared), ("added", added)):
        rows = rows.append_column(name, column)
    for name in ("rank", "noise"):
        rows = rows.set_column(
            rows.column_names.index(name), name, rows[name].cast(pa.int32()).fill_null(-1)
        )
    plain = pa.array(rows["strength"].to_numpy().astype(np.float64).round(6))
    return rows.set_column(rows.column_names.index("strength"), "strength", plain)


def _added(lists: list[pa.ChunkedArray], *, own: bool, learned: Mapping[str, str]) -> list[str]:
    """What is combined with each row's direction, in words."""

    def called(region: str, rank: int, direction: str) -> str:
        if rank == LEARNED_RANK:
            return _name(direction, learned)
        return f"{region} {rank}" if own else f"{region} {rank} {direction}"

    return [
        ", ".join(
            f"{called(region, rank, direction)} {signed(round(strength, 6))}"
            for region, rank, direction, strength in zip(*row, strict=True)
        )
        for row in zip(*(each.to_pylist() for each in lists), strict=True)
    ]


def _name(direction: str, learned: Mapping[str, str]) -> str:
    return learned.get(direction, direction[:_DIGITS])


def grouped(rows: pa.Table) -> tuple[list[GroupKey], Ints]:
    """The groups of a table with GROUP_COLUMNS in ascending order, learned editors first, and the
    position of every row's group among them.
    """
    if not rows.num_rows:
        return [], np.zeros(0, np.int64)
    first_G = np.zeros(1, np.int64)
    group_N = np.zeros(rows.num_rows, np.int64)
    for name in GROUP_COLUMNS:
        code_N = codes(rows[name])
        both_N = group_N * (code_N.max() + 1) + code_N
        _, first_G, group_N = np.unique(both_N, return_index=True, return_inverse=True)
    found = rows.select(GROUP_COLUMNS).take(pa.array(first_G)).to_pylist()
    keys = [group_key(row) for row in found]
    order = sorted(range(len(keys)), key=lambda place: keys[place].order)
    place_G = np.empty(len(keys), np.int64)
    place_G[order] = np.arange(len(keys))
    return [keys[g] for g in order], place_G[group_N]


def codes(column: pa.ChunkedArray) -> Ints:
    """A number for every value, the same for equal ones."""
    whole = column.combine_chunks()
    if not pa.types.is_dictionary(whole.type):
        whole = whole.dictionary_encode(null_encoding="encode")
    return np.asarray(whole.indices.fill_null(-1).to_numpy(zero_copy_only=False), np.int64) + 1
