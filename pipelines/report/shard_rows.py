"""What the commit and the errors file of one shard say, reduced to what the report keeps of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import pyarrow as pa

from lib.files import parquet, storage
from lib.ledger.commit_record import CommitDamageError, CommitRecord, read_commit_rows
from lib.ledger.run_folder import RunFolder
from pipelines.report.groups import GroupKey, grouped, with_groups

_DROPPED = ("sha256", "mask_sha256", "injection")
_REPEATED = ("shard", "image", "region", "filtered")
"""Texts of few values, kept as codes."""
_EXAMPLES_PER_SHARD = 5


@dataclass(frozen=True, slots=True)
class ErrorExample:
    """One row of an errors file."""

    stage: str
    kind: str
    shard: str
    index: int | None
    key: str | None
    message: str


@dataclass(frozen=True, slots=True)
class ShardRows:
    """One shard's part of the numbers."""

    record: CommitRecord
    counts: dict[GroupKey, int]
    """Edits of a group."""
    edits: pa.Table | None
    """None where the run edits nothing."""
    errors: Counter[tuple[str, str]]
    examples: list[ErrorExample]
    notice: str | None


def read_shard_rows(folder: RunFolder, shard: str, learned: Mapping[str, str]) -> ShardRows | str:
    """The rows of a committed shard; or what is wrong with its commit. `learned`: id -> name of the
    run's learned editors.
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
        return ShardRows(record, {}, None, errors, examples, notice)
    edits = _kept(rows, own=record.own_directions, learned=learned)
    keys, group_N = grouped(edits)
    counted = Counter(group_N.tolist())
    counts = {key: counted[number] for number, key in enumerate(keys)}
    return ShardRows(record, counts, edits, errors, examples, notice)


def _kept(rows: pa.Table, *, own: bool, learned: Mapping[str, str]) -> pa.Table:
    rows = rows.drop_columns([name for name in _DROPPED if name in rows.column_names])
    rows = rows.replace_schema_metadata(None)
    for name in _REPEATED:
        if name in rows.column_names:
            place = rows.column_names.index(name)
            rows = rows.set_column(place, name, rows[name].dictionary_encode())
    return with_groups(rows, own=own, learned=learned)


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
