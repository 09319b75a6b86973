"""A direction library is a folder: `directions.parquet`, one row a direction, the best first, and
`library.json`, how it was made. Written whole and in place of the old one; no moment is stored.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lib.direction import Direction
from lib.directions.direction_table import from_table, to_table
from lib.directions.library_rows import LIBRARY_VERSION, RECORD, TABLE, find_id, read_record
from lib.files import parquet, storage
from lib.problems import ConfigProblem

DTYPE = "float32"
"""Of a library's vectors: means are not rounded again, float16 vectors keep their ids."""


@dataclass(frozen=True, slots=True)
class Library:
    """A library that was read."""

    root: str
    record: Mapping[str, Any]
    """library.json."""
    directions: tuple[Direction, ...]
    """In the order of the file; at least one."""

    def find(self, given: str) -> Direction:
        """The direction whose id is `given` or alone begins with it; ConfigProblem otherwise."""
        wanted = find_id([d.id for d in self.directions], given, self.root)
        return next(d for d in self.directions if d.id == wanted)


def read_library_folder(root: str) -> Library:
    """The whole library at `root`, with its vectors.

    Raises:
        ConfigProblem: there is none, or it is empty or damaged.
    """
    record = read_record(root)
    url = storage.join(root, TABLE)
    try:
        table = parquet.decode(storage.read_bytes(url), url)
    except (FileNotFoundError, parquet.ParquetError) as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected the table of a direction library: {error}"
        ) from error
    directions = tuple(from_table(table))
    if not directions:
        raise ConfigProblem(f"{storage.redact(root)}: the library holds no direction")
    return Library(root, record, directions)


def write_library(
    root: str, details: Mapping[str, Any], directions: Iterable[Direction]
) -> Library:
    """Write the library, directions ordered and ranked; `details` (how it was built, scored) enter
    library.json beside what all directions have in common.

    Raises:
        ConfigProblem: there is no direction, or not all are of one model, layer, space and shape.
    """
    ordered = ranked(directions)
    if not ordered:
        raise ConfigProblem(f"{storage.redact(root)}: a library needs at least one direction")
    for other in ordered[1:]:
        if kind_of(other) != kind_of(ordered[0]):
            raise ConfigProblem(
                f"{storage.redact(root)}: expected directions of one model, h layer, space and"
                f" shape, but {ordered[0].id} is of {kind_text(kind_of(ordered[0]))} and {other.id}"
                f" of {kind_text(kind_of(other))}"
            )
    model, h_layer, space, shape = kind_of(ordered[0])
    common = {
        "v": LIBRARY_VERSION,
        "model": model,
        "h_layer": h_layer,
        "space": space,
        "vector_shape": list(shape),
    }
    record = common | {k: v for k, v in details.items() if k not in common}
    table = to_table(ordered, DTYPE)
    storage.replace(storage.join(root, TABLE), parquet.encode(table))
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    storage.replace(storage.join(root, RECORD), text.encode())
    return Library(root, record, ordered)


def ranked(directions: Iterable[Direction]) -> tuple[Direction, ...]:
    """By score where scored, then by region, support, singular value and id; the rank counts
    within each region.
    """
    counts: Counter[str] = Counter()
    placed = []
    for direction in sorted(directions, key=_order):
        placed.append(replace(direction, rank=counts[direction.region]))
        counts[direction.region] += 1
    return tuple(placed)


def _order(direction: Direction) -> tuple[Any, ...]:
    if direction.scores is not None:
        return (0, -direction.scores.score, direction.region, direction.id)
    return (1, direction.region, -direction.support, -direction.singular_value, direction.id)


Kind = tuple[str, str, str, tuple[int, ...]]
"""Model, h layer, space and vector shape: what all directions of a library share."""


def kind_of(direction: Direction) -> Kind:
    """What `direction` must share with the rest of its library."""
    shape = tuple(direction.vector_SCYX.shape)
    return (direction.model, direction.h_layer, direction.space, shape)


def kind_text(kind: Kind) -> str:
    """For messages."""
    model, h_layer, space, shape = kind
    return f"model {model[:12]}, layer {h_layer}, space {space}, vectors {shape}"
