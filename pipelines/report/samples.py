"""Which samples the report shows pictures of: evenly spaced ones, and those of the best and worst
edits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.report.groups import GroupKey, Ints, codes, group_key
from pipelines.report.numbers import RunNumbers, sample_starts, spread

_COLUMNS = (
    "shard", "index", "key", "edit", "member", "region", "rank", "learned", "shared", "added",
    "noise", "strength", "image", "source_width", "source_height", "crop_left", "crop_top",
    "crop_width", "crop_height",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sample:
    """A sample to show: the rows of its edits by column name."""

    shard: str
    index: int
    key: str
    tar: str
    input_sha256: str
    first_row: int
    """Of its edits in the report's table; `rows` are this one and those behind it."""
    rows: tuple[Mapping[str, Any], ...]

    def of_sheet(self, sheet: GroupKey) -> list[tuple[float, int]]:
        """(strength, position in `rows`) of the edits on a contact sheet, by strength."""
        keyed = ((group_key(row), place) for place, row in enumerate(self.rows))
        return sorted((key.strength, place) for key, place in keyed if key.sheet == sheet)


class Samples:
    """The samples of a report's table by number, in the order of the table."""

    def __init__(self, numbers: RunNumbers) -> None:
        self._numbers = numbers
        self._start_S = sample_starts(numbers.edits)
        self._end_S = np.append(self._start_S[1:], numbers.edits.num_rows)
        self._shown = numbers.edits.select(_COLUMNS) if numbers.keys else numbers.edits

    def __len__(self) -> int:
        return len(self._start_S)

    def __getitem__(self, number: int) -> Sample:
        if not 0 <= number < len(self):
            raise IndexError(f"expected a sample below {len(self)}, got {number}")
        first, end = int(self._start_S[number]), int(self._end_S[number])
        rows = self._shown.slice(first, end - first).to_pylist()
        row = rows[0]
        sha256 = self._numbers.input_sha256[row["shard"]]
        return Sample(
            row["shard"], row["index"], row["key"], row["image"], sha256, first, tuple(rows)
        )

    def of_row(self, row: int) -> int:
        """The number of the sample that a row belongs to."""
        return int(np.searchsorted(self._start_S, row, side="right")) - 1

    def rows_each(self) -> float:
        """Median number of edits of a sample."""
        return float(np.median(self._end_S - self._start_S)) if len(self) else 0.0

    def even(self, count: int) -> list[int]:
        """At most `count` samples, taking turns between evenly spaced shards, from the front of
        each; ascending.
        """
        if not len(self):
            return []
        shard_S = codes(self._numbers.edits["shard"])[self._start_S]
        _, first_D = np.unique(shard_S, return_index=True)
        ends = np.append(np.sort(first_D)[1:], len(self))
        fronts = list(zip(np.sort(first_D).tolist(), ends.tolist(), strict=True))
        columns = spread(fronts, count)
        deepest = max(end - first for first, end in columns)
        turns = (
            first + turn
            for turn in range(min(count, deepest))
            for first, end in columns
            if first + turn < end
        )
        return sorted(number for number, _ in zip(turns, range(count), strict=False))


def by_tar(samples: Iterable[Sample]) -> list[tuple[str, list[Sample]]]:
    """The samples of each tar, in their order."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.tar, []).append(sample)
    return list(found.items())


def sheets_of(numbers: RunNumbers) -> dict[GroupKey, Ints]:
    """Sheet -> the positions in `numbers.keys` of its groups; learned editors first, then single
    directions, so that combinations are left out where there are too many.
    """
    found: dict[GroupKey, list[int]] = {}
    for place, key in enumerate(numbers.keys):
        found.setdefault(key.sheet, []).append(place)
    ordered = sorted(found, key=lambda s: (s.added != "", s.order))
    return {sheet: np.array(found[sheet], np.int64) for sheet in ordered}
