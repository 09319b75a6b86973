"""What the report says in numbers: read from the commits, so that an unfinished run has a report
too.

Memory is bounded: a large run is read in an even, repeatable selection of its shards and samples.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lib.commit_record import CommitDamageError, CommitRecord
from lib.run_folder import RunFolder
from lib.summary import read_commits
from pipelines.report_shard import (
    MEASURES,
    ErrorExample,
    GroupKey,
    ShardNumbers,
    read_shard_numbers,
)

MAX_SHARDS = 2000
"""Of how many shards the rows are read."""

_MAX_ROWS = 2_000_000
_READERS = 8

T = TypeVar("T")


@dataclass(slots=True)
class RunNumbers:
    """Totals of every commit, and the measurements of those whose rows were read."""

    committed: int = 0
    shards_read: int = 0
    """Commits whose rows are in `values`; fewer than `committed` in a large run."""
    thinned: bool = False
    """Whether only every n-th sample of a shard is in `values`."""
    samples_ok: int = 0
    samples_err: int = 0
    edits: int = 0
    directions: int = 0
    """Found in single images."""
    image_bytes: int = 0
    counts: Counter[GroupKey] = field(default_factory=Counter)
    """Edits of a group in the shards read, thinned or not."""
    values: dict[GroupKey, npt.NDArray[np.float32]] = field(default_factory=dict)
    """Shape (4, edits): in_change, out_change, roir, psnr."""
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, kind) -> rows in the errors files of the shards read."""
    examples: list[ErrorExample] = field(default_factory=list)
    with_images: list[str] = field(default_factory=list)
    """Shards of those read that have at least one edit."""
    direction_files: list[str] = field(default_factory=list)
    """Of the shards read."""
    versions: set[tuple[tuple[str, str], ...]] = field(default_factory=set)
    oom_shards: int = 0
    """Shards read that had to use a smaller batch because memory ran out."""
    notices: list[str] = field(default_factory=list)

    def median(self, measure: str) -> float | None:
        """The median over all edits that were read, None without any."""
        row = MEASURES.index(measure)
        parts = [values[row] for values in self.values.values()]
        return _median(np.concatenate(parts)) if parts else None

    def medians(self, key: GroupKey) -> dict[str, float]:
        """Measure -> median over the group's edits."""
        return dict(zip(MEASURES, map(_median, self.values[key]), strict=True))

    def of_region(self, measure: str) -> dict[str, npt.NDArray[np.float32]]:
        """Region -> that measure of all its edits."""
        row = MEASURES.index(measure)
        parts: defaultdict[str, list[npt.NDArray[np.float32]]] = defaultdict(list)
        for key in sorted(self.values):
            parts[key.region].append(self.values[key][row])
        return {region: np.concatenate(found) for region, found in parts.items()}

    def in_change_by_strength(self, region: str) -> list[tuple[float, npt.NDArray[np.float32]]]:
        """(strength, in_change of its edits) in ascending order, of directions alone."""
        parts: defaultdict[float, list[npt.NDArray[np.float32]]] = defaultdict(list)
        for key, values in self.values.items():
            if key.region == region and not key.added:
                parts[key.strength].append(values[MEASURES.index("in_change")])
        return [(strength, np.concatenate(parts[strength])) for strength in sorted(parts)]


def _median(values: npt.NDArray[np.float32]) -> float:
    """Of the numbers among them: directions of the whole image have no ROIR."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of `items`, evenly spaced; the same ones every time."""
    if len(items) <= count:
        return list(items)
    return [items[position * len(items) // count] for position in range(count)]


def read_numbers(folder: RunFolder) -> RunNumbers:
    """Read the commits of a run; what cannot be read becomes a notice."""
    committed = sorted(folder.committed())
    chosen = spread(committed, MAX_SHARDS)
    row_limit = max(1, _MAX_ROWS // max(1, len(chosen)))
    numbers = RunNumbers(committed=len(committed))
    parts: defaultdict[GroupKey, list[npt.NDArray[np.float32]]] = defaultdict(list)

    def read(shard: str) -> ShardNumbers | str:
        return read_shard_numbers(folder, shard, row_limit)

    with ThreadPoolExecutor(_READERS) as pool:
        for found in pool.map(read, chosen):
            if isinstance(found, str):
                numbers.notices.append(found)
                continue
            _add_record(numbers, found.record)
            numbers.shards_read += 1
            numbers.thinned |= found.thinned
            numbers.counts.update(found.counts)
            numbers.errors.update(found.errors)
            numbers.examples += found.examples
            numbers.versions.add(tuple(sorted(found.record.versions.items())))
            numbers.oom_shards += found.record.oom_batch is not None
            if found.record.image:
                numbers.with_images.append(found.record.shard)
            if found.record.directions:
                numbers.direction_files.append(found.record.directions)
            if found.notice:
                numbers.notices.append(found.notice)
            for key, values in found.values.items():
                parts[key].append(values)
    skipped = sorted(set(committed) - set(chosen))
    for _, record in read_commits(folder, skipped):
        if isinstance(record, CommitDamageError):
            numbers.notices.append(str(record))
        else:
            _add_record(numbers, record)
    numbers.values = {key: np.concatenate(parts[key], axis=1) for key in sorted(parts)}
    return numbers


def _add_record(numbers: RunNumbers, record: CommitRecord) -> None:
    numbers.samples_ok += record.n_ok
    numbers.samples_err += record.n_err
    numbers.edits += record.n_edits
    numbers.directions += record.n_directions
    numbers.image_bytes += record.image_bytes
