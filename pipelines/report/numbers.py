"""What the report says in numbers: read from the commits, so that an unfinished run has a report
too.

Memory is bounded: of a large run an even, repeatable selection of shards and samples is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lib.ledger.commit_record import CommitDamageError, CommitRecord
from lib.ledger.commit_totals import read_commits
from lib.ledger.run_folder import RunFolder
from pipelines.learned_names import learned_names
from pipelines.report.groups import GroupKey, Ints, codes, grouped
from pipelines.report.measures import Measure, measures_of
from pipelines.report.shard_rows import ErrorExample, ShardRows, read_shard_rows

MAX_SHARDS = 2000
"""Of how many shards the rows are read."""
MAX_EDITS = 200_000
"""Edits that are kept; of larger runs every n-th sample of each shard."""

_READERS = 8

T = TypeVar("T")
Floats = npt.NDArray[np.float32]


@dataclass(slots=True)
class RunNumbers:
    """Totals of every commit, and the rows of those that were read."""

    committed: int = 0
    shards_read: int = 0
    """Commits whose rows were read; fewer than `committed` in a large run."""
    every: int = 1
    """Every so many-th sample of a shard is in `edits`."""
    samples_ok: int = 0
    samples_err: int = 0
    n_edits: int = 0
    n_directions: int = 0
    """Found in single images."""
    image_bytes: int = 0
    input_bytes: int = 0
    marked: Counter[str] = field(default_factory=Counter)
    """Rule of evaluate.filters -> edits for which it is the first that they break."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Likewise, of edits that were left out."""
    counts: Counter[GroupKey] = field(default_factory=Counter)
    """Edits of a group in the shards read, all samples."""
    edits: pa.Table = field(default_factory=lambda: pa.table({}))
    """Rows in the order of shard, index and edit; no columns where there is none."""
    measures: list[Measure] = field(default_factory=list)
    """Those of the columns of `edits` that hold a number anywhere."""
    keys: list[GroupKey] = field(default_factory=list)
    group_N: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Of every row of `edits` the position in `keys`."""
    input_sha256: dict[str, str] = field(default_factory=dict)
    """Shard -> hash of the input that was edited."""
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(stage, kind) -> rows in the errors files of the shards read."""
    examples: list[ErrorExample] = field(default_factory=list)
    direction_files: list[str] = field(default_factory=list)
    """Of the shards read."""
    versions: set[tuple[tuple[str, str], ...]] = field(default_factory=set)
    oom_shards: int = 0
    """Shards read that had to use a smaller batch because memory ran out."""
    notices: list[str] = field(default_factory=list)

    def column(self, name: str) -> Floats:
        """A measure of every row of `edits`; NaN where there is none."""
        return np.asarray(self.edits[name].to_numpy(), np.float32)

    def median(self, name: str) -> float:
        """The median over all edits that were read; NaN without any, or without the column."""
        return median(self.column(name)) if name in self.edits.column_names else float("nan")

    def shard_rows(self) -> dict[str, slice]:
        """Where the rows of each shard stand: they are together."""
        _, first = np.unique(codes(self.edits["shard"]), return_index=True)
        starts = sorted(first.tolist())
        ends = [*starts[1:], self.edits.num_rows]
        names = [self.edits["shard"][start].as_py() for start in starts]
        return {n: slice(start, end) for n, start, end in zip(names, starts, ends, strict=True)}

    def series(self) -> tuple[list[tuple[str, str]], Ints]:
        """The learned editors, then the regions of discovered directions, as `GroupKey.series`; and
        of every row the position of its own.
        """
        found = sorted({key.series for key in self.keys}, key=lambda each: (not each[0], each))
        place_G = np.array([found.index(key.series) for key in self.keys], np.int64)
        return found, place_G[self.group_N] if self.keys else self.group_N


def median(values: Floats) -> float:
    """Of the numbers among them: directions of the whole image have no ROIR."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of `items`, evenly spaced; the same ones every time."""
    if len(items) <= count:
        return list(items)
    return [items[position * len(items) // count] for position in range(count)]


def read_numbers(folder: RunFolder, config: Mapping[str, Any] | None = None) -> RunNumbers:
    """Read the commits of a run; what cannot be read becomes a notice. `config` is the run's as in
    run.json, None where there is none.
    """
    committed = sorted(folder.committed())
    chosen = spread(committed, MAX_SHARDS)
    numbers = RunNumbers(committed=len(committed))
    parts: list[pa.Table] = []

    learned = learned_names(folder)

    def read(shard: str) -> ShardRows | str:
        return read_shard_rows(folder, shard, learned)

    with ThreadPoolExecutor(_READERS) as pool:
        for found in pool.map(read, chosen):
            if isinstance(found, str):
                numbers.notices.append(found)
                continue
            _add_shard(numbers, found)
            if found.edits is not None and found.edits.num_rows:
                parts.append(_every(found.edits, numbers.every))
                parts = _thinned(numbers, parts)
    skipped = sorted(set(committed) - set(chosen))
    for _, record in read_commits(folder, skipped):
        if isinstance(record, CommitDamageError):
            numbers.notices.append(str(record))
        else:
            _add_record(numbers, record)
    if parts:
        numbers.edits = pa.concat_tables(parts, promote_options="default").unify_dictionaries()
        numbers.keys, numbers.group_N = grouped(numbers.edits)
        numbers.measures = [
            measure
            for measure in measures_of(numbers.edits.schema, config or {})
            if np.isfinite(numbers.column(measure.name)).any()
        ]
    return numbers


def _thinned(numbers: RunNumbers, parts: list[pa.Table]) -> list[pa.Table]:
    """`parts` with half the samples again and again while there are too many edits."""
    rows = sum(part.num_rows for part in parts)
    while rows > MAX_EDITS:
        halved = [_every(part, 2 * numbers.every) for part in parts]
        left = sum(part.num_rows for part in halved)
        if left == rows:  # a sample of each shard is left
            break
        parts, rows = halved, left
        numbers.every *= 2
    return parts


def _every(rows: pa.Table, n: int) -> pa.Table:
    """The rows of every n-th sample, of the first if that is none."""
    if n == 1:
        return rows
    index_N = rows["index"].to_numpy()
    kept_N = index_N % n == 0
    if not kept_N.any():
        kept_N = index_N == index_N[0]
    return rows.filter(pa.array(kept_N))


def _add_shard(numbers: RunNumbers, found: ShardRows) -> None:
    record = found.record
    _add_record(numbers, record)
    numbers.shards_read += 1
    numbers.counts.update(found.counts)
    numbers.errors.update(found.errors)
    numbers.examples += found.examples
    numbers.versions.add(tuple(sorted(record.versions.items())))
    numbers.oom_shards += record.oom_batch is not None
    numbers.input_sha256[record.shard] = record.input_sha256
    if record.directions:
        numbers.direction_files.append(record.directions)
    if found.notice:
        numbers.notices.append(found.notice)


def _add_record(numbers: RunNumbers, record: CommitRecord) -> None:
    numbers.samples_ok += record.n_ok
    numbers.samples_err += record.n_err
    numbers.n_edits += record.n_edits
    numbers.n_directions += record.n_directions
    numbers.marked.update(record.marked)
    numbers.dropped.update(record.dropped)
    numbers.image_bytes += record.image_bytes
    numbers.input_bytes += record.input_size


def medians_by_group(numbers: RunNumbers, names: Sequence[str]) -> list[dict[str, float]]:
    """Measure -> median, for every group of `numbers.keys`."""
    order_N = np.argsort(numbers.group_N, kind="stable")
    bounds = np.searchsorted(numbers.group_N[order_N], np.arange(len(numbers.keys) + 1))
    columns = {name: numbers.column(name)[order_N] for name in names}
    return [
        {name: median(values[bounds[g] : bounds[g + 1]]) for name, values in columns.items()}
        for g in range(len(numbers.keys))
    ]


def sample_starts(edits: pa.Table) -> Ints:
    """The row at which each sample begins; rows of one sample stand together."""
    if not edits.num_rows:
        return np.zeros(0, np.int64)
    shard_N, index_N = codes(edits["shard"]), edits["index"].to_numpy()
    new_N = (np.diff(shard_N) != 0) | (np.diff(index_N) != 0)
    return np.concatenate(([0], np.flatnonzero(new_N) + 1))
