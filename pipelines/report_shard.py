"""What the commit and the errors file of one shard say, reduced to what the report keeps of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lib import parquet, storage
from lib.commit_record import CommitDamageError, CommitRecord, read_commit_rows
from lib.run_folder import RunFolder

MEASURES = ("in_change", "out_change", "roir", "psnr")
"""The rows of a group's values."""

_EXAMPLES_PER_SHARD = 5


class GroupKey(NamedTuple):
    """Edits that are compared with each other."""

    region: str
    rank: int
    direction: str
    """"" where every sample has directions of its own, an id where all share a library's."""
    strength: float


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """One row of an errors file."""

    stage: str
    kind: str
    shard: str
    index: int | None
    key: str | None
    message: str


@dataclass(slots=True)
class ShardNumbers:
    """One shard's part of the numbers."""

    record: CommitRecord
    counts: dict[GroupKey, int]
    values: dict[GroupKey, npt.NDArray[np.float32]]
    thinned: bool
    errors: Counter[tuple[str, str]]
    examples: list[ErrorExample]
    notice: str | None


def read_shard_numbers(folder: RunFolder, shard: str, row_limit: int) -> ShardNumbers | str:
    """The numbers of a committed shard, the values of about `row_limit` edits at most; or what is
    wrong with its commit.
    """
    try:
        record, rows = read_commit_rows(folder.commit_url(shard))
    except (CommitDamageError, OSError) as error:
        return storage.redact(str(error))
    errors: Counter[tuple[str, str]] = Counter()
    examples: list[ErrorExample] = []
    notice = None
    if record.errors:
        try:
            errors, examples = _read_errors(folder.url("errors", record.errors))
        except (parquet.ParquetError, OSError, KeyError) as error:
            errors.update({("unknown", kind): n for kind, n in record.error_kinds.items()})
            reason = storage.redact(str(error))
            notice = (
                f"errors/{record.errors} cannot be read, so its messages are not here: {reason}"
            )
    if record.rows != "edits":
        return ShardNumbers(record, {}, {}, False, errors, examples, notice)
    counts, values, thinned = _measurements(rows, row_limit, own=record.own_directions)
    return ShardNumbers(record, counts, values, thinned, errors, examples, notice)


def few_examples(examples: Iterable[ErrorExample], count: int) -> list[ErrorExample]:
    """At most `count`, taking turns between the kinds so that a frequent one hides no other."""
    kinds: defaultdict[tuple[str, str], list[ErrorExample]] = defaultdict(list)
    for example in examples:
        kinds[example.stage, example.kind].append(example)
    rounds = max((len(found) for found in kinds.values()), default=0)
    ordered = [
        kinds[kind][turn]
        for turn in range(rounds)
        for kind in sorted(kinds)
        if turn < len(kinds[kind])
    ]
    return sorted(ordered[:count], key=lambda example: (example.stage, example.kind))


def _read_errors(url: str) -> tuple[Counter[tuple[str, str]], list[ErrorExample]]:
    table = parquet.decode(storage.read_bytes(url), url)
    columns = [table[each.name].to_pylist() for each in fields(ErrorExample)]
    rows = [ErrorExample(*values) for values in zip(*columns, strict=True)]
    counted = Counter((row.stage, row.kind) for row in rows)
    return counted, few_examples(rows, _EXAMPLES_PER_SHARD)


def _measurements(
    rows: pa.Table, row_limit: int, *, own: bool
) -> tuple[dict[GroupKey, int], dict[GroupKey, npt.NDArray[np.float32]], bool]:
    """Edits and values of every group; values of every n-th sample if there are too many."""
    if not rows.num_rows:
        return {}, {}, False
    regions, region_N = _coded(rows, "region")
    directions, direction_N = ([""], np.zeros(rows.num_rows)) if own else _coded(rows, "direction")
    strength_N = rows["strength"].to_numpy().round(6)
    rank_N = rows["rank"].to_numpy()
    coded = np.stack([region_N, rank_N, direction_N, strength_N.astype(np.float64)])
    groups, group_N = np.unique(coded, axis=1, return_inverse=True)
    group_N = group_N.reshape(-1)
    keys = [
        GroupKey(regions[int(r)], int(rank), directions[int(d)], round(float(s), 6))
        for r, rank, d, s in groups.T
    ]
    counts = dict(zip(keys, np.bincount(group_N, minlength=len(keys)).tolist(), strict=True))
    every = -(-rows.num_rows // row_limit)
    kept_N = rows["index"].to_numpy() % every == 0
    if not kept_N.any():
        kept_N[:] = rows["index"].to_numpy() == rows["index"][0].as_py()
    value_MN = np.stack([rows[name].to_numpy() for name in MEASURES]).astype(np.float32)
    values = {
        key: value_MN[:, kept_N & (group_N == number)]
        for number, key in enumerate(keys)
        if (kept_N & (group_N == number)).any()
    }
    return counts, values, every > 1


def _coded(rows: pa.Table, name: str) -> tuple[list[str], npt.NDArray[np.float64]]:
    """The distinct values of a column, and each row's position among them."""
    column = rows[name].combine_chunks().dictionary_encode()
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    return column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.float64)
