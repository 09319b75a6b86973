"""What the edits of a run are called within their region: by the label of their direction or of
their learned editor, else by its rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lib.directions.library_files import library_files
from lib.editors.editor_table import TABLE as EDITORS_TABLE
from lib.files import storage
from lib.problems import Problem

_COLUMNS = ["id", "region", "rank", "label", "shard", "index"]
_SHORT_ID = 8
_NONE: Mapping[str, str] = MappingProxyType({})
_RENOISED = "sdedit"


@dataclass(frozen=True, slots=True)
class DirectionNames:
    """Names, and where each direction was found, of a run that applies a library; of a run that
    finds its own, where rank says all, those of its learned editors.
    """

    own: bool
    by_id: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Direction id -> (shard, index) of the image in which it was found, where it was one."""

    def __call__(self, row: Mapping[str, Any]) -> str:
        """The name of a row's direction; `0+2` where several are combined."""
        if row["direction"] is None:
            return _RENOISED
        ids = [row["direction"], *row["added_directions"]]
        ranks = [row["rank"], *row["added_ranks"]]
        return "+".join(self._one(i, rank) for i, rank in zip(ids, ranks, strict=True))

    def _one(self, direction: str, rank: int) -> str:
        known = self.by_id.get(direction)
        return known or (str(rank) if self.own and rank >= 0 else direction[:_SHORT_ID])


def direction_names(
    config: Mapping[str, Any], learned: Mapping[str, str] = _NONE
) -> tuple[DirectionNames, str | None]:
    """Of a run whose run.json holds `config`, and what went wrong where its library cannot be read:
    its directions are then called by the beginning of their ids. `learned`: id -> name of its
    learned editors.
    """
    discover = config.get("discover") or {}
    if discover.get("method") != "library":
        return DirectionNames(own=True, by_id=_apart(learned, ())), None
    path = str(discover.get("path"))
    try:
        editors_alone = bool(learned) and storage.exists(storage.join(path, EDITORS_TABLE))
        tables = [
            pq.read_table(pa.BufferReader(storage.read_bytes(url)), columns=_COLUMNS)
            for url in library_files(path, optional=editors_alone)
        ]
    except (OSError, ValueError, Problem) as error:
        reason = storage.redact(str(error))
        return DirectionNames(own=False, by_id=_apart(learned, ())), (
            f"the directions are named by their ids, because the library of the run cannot be read:"
            f" {reason}"
        )
    found = _named(row for table in tables for row in table.to_pylist())
    by_id = {**found.by_id, **_apart(learned, found.by_id.values())}
    return replace(found, by_id=by_id), None


def _apart(learned: Mapping[str, str], taken: Collection[str]) -> dict[str, str]:
    """Names of learned editors, with digits of the id where they could be taken for a rank or for
    another direction.
    """
    return {
        editor: f"{name} {editor[:_SHORT_ID]}" if name in taken or name.isdecimal() else name
        for editor, name in learned.items()
    }


def _named(rows: Iterable[Mapping[str, Any]]) -> DirectionNames:
    """A label names a direction; a rank does where it belongs to one direction of its region."""
    by_id = {row["id"]: row for row in rows}
    ranks = Counter((row["region"], row["rank"]) for row in by_id.values())
    labels = Counter((row["region"], row["label"]) for row in by_id.values())
    names = {}
    for direction, row in by_id.items():
        if row["label"] and labels[row["region"], row["label"]] == 1:
            names[direction] = str(row["label"])
        elif ranks[row["region"], row["rank"]] == 1:
            names[direction] = str(row["rank"])
    sources = {
        direction: (row["shard"], row["index"])
        for direction, row in by_id.items()
        if row["shard"] is not None and row["index"] is not None
    }
    return DirectionNames(own=False, by_id=names, sources=sources)
