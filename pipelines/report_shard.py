"""What the commit and the errors file of one shard say, reduced to what the report keeps of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lib import parquet, storage
from lib.commit_record import CommitDamageError, CommitRecord, read_commit_rows
from lib.run_folder import RunFolder
from pipelines.number_texts import signed

MEASURES = ("in_change", "out_change", "roir", "psnr")
"""The rows of a group's values."""

_ADDED = ("regions", "ranks", "directions", "strengths")
_GROUP_COLUMNS = (
    "region", "rank", "direction", *(f"added_{what}" for what in _ADDED), "noise", "strength",
)  # fmt: skip
_EXAMPLES_PER_SHARD = 5


class GroupKey(NamedTuple):
    """Edits that are compared with each other."""

    region: str
    rank: int
    """-1: no direction (SDEdit)."""
    direction: str
    """"" where every sample has directions of its own, an id where all share a library's."""
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
    def first_region(self) -> str:
        """Of the direction that the others are combined with."""
        return self.region.split("+")[0]


def group_key(row: Mapping[str, Any], *, own: bool) -> GroupKey:
    """The group of a row of schemas.EDITS; `own`: every sample has directions of its own."""
    return GroupKey(
        row["region"],
        -1 if row["rank"] is None else row["rank"],
        "" if own else row["direction"] or "",
        _added(row, own=own),
        -1 if row["noise"] is None else row["noise"],
        round(row["strength"], 6),
    )


def _added(row: Mapping[str, Any], *, own: bool) -> str:
    terms = zip(*(row[f"added_{what}"] for what in _ADDED), strict=True)
    return ", ".join(
        f"{region} {rank} {'' if own else f'{direction} '}{signed(round(strength, 6))}"
        for region, rank, direction, strength in terms
    )


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
    first_G, group_N = _grouped(rows, own=own)
    keys = [
        group_key(row, own=own)
        for row in rows.select(_GROUP_COLUMNS).take(pa.array(first_G)).to_pylist()
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


def _grouped(
    rows: pa.Table, *, own: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:  # fmt: skip
    """The first row of every group, and the group of every row: of those that are alike in all of
    _GROUP_COLUMNS, the ids of directions aside where they are each sample's own.
    """
    first_G = np.zeros(1, np.int64)
    group_N = np.zeros(rows.num_rows, np.int64)
    for name in _GROUP_COLUMNS:
        if own and name.endswith(("direction", "directions")):
            continue
        column = rows[name].combine_chunks()
        if pa.types.is_list(column.type):
            column = pc.binary_join(column.cast(pa.list_(pa.string())), "|")
        if name == "strength":
            column = pa.array(column.to_numpy().round(6))
        code_N = column.dictionary_encode(null_encoding="encode").indices.to_numpy()
        both_N = group_N * (code_N.max() + 1) + code_N
        _, first_G, group_N = np.unique(both_N, return_index=True, return_inverse=True)
    return first_G, group_N
