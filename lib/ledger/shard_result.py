"""What a pipeline hands over for one shard, and the checks without which it is not committed."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lib.files import row_kinds, schemas
from lib.files.row_kinds import RowKind
from lib.receipts import Failure


class CommitError(ValueError):
    """The result contradicts itself and must not be committed: a defect of the pipeline that made
    it.
    """


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a pipeline hands over for one input shard."""

    shard: str
    n_in: int
    """Samples found in the shard; each is in `rows` or in `failures`."""
    input_size: int
    """Bytes."""
    input_sha256: str
    """Of the input shard, so that a changed input is seen; where it lies is in inputs.json."""
    rows: pa.Table
    """schemas.EDITS or schemas.SAMPLES, sorted, at least one row per sample that is ok; `commit`
    fills the column `image` of edits.
    """
    images: bytes
    """The tar of edited images, deterministic; b"" when no sample could be done, or none is
    edited.
    """
    directions: pa.Table | None
    """schemas.directions(...): the directions found here; None when the run reads them from a
    library, or finds them in all images together.
    """
    failures: Sequence[Failure]
    """One per sample that could not be done, and one without an index per unreadable stretch of the
    shard.
    """
    statistics: bytes = b""
    """A statistics file (lib.discovery.statistics_files): this shard's part of what is learned
    from all images; b"" when the run learns nothing from them.
    """
    latents: bytes = b""
    """A latents file (lib.files.latent_files); b"" when the run stores none."""
    oom_batch: int | None = None
    """No batch was larger, because memory ran out; None when the configured ones were used."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rule of evaluate.filters -> edits that were dropped because it is the first that they break;
    they are neither in `rows` nor in `images`.
    """


def used_directions(edits: pa.Table) -> set[str]:
    """Ids of the directions that rows of schemas.EDITS name, combined ones too; without learned
    editors, whose rank is below 0 and which no shard stores.
    """
    ids = [*edits["direction"].to_pylist(), *_flat(edits["added_directions"])]
    ranks = [*edits["rank"].to_pylist(), *_flat(edits["added_ranks"])]
    return {i for i, rank in zip(ids, ranks, strict=True) if i is not None and rank >= 0}


def _flat(lists: pa.ChunkedArray) -> list[Any]:
    return list(pc.list_flatten(lists).to_pylist())


def checked(result: ShardResult) -> tuple[RowKind, int, int]:
    """(kind of the rows, samples ok, samples in error).

    Raises:
        CommitError: the result contradicts itself.
    """
    where = f"shard {result.shard}"
    kind = row_kinds.of_schema(result.rows.schema)
    if kind is None:
        raise CommitError(
            f"{where}: expected rows with the schema of edits or samples, got\n{result.rows.schema}"
        )
    ok, failed = _check_samples(result, kind, where)
    if (bool(ok) and kind.has_images) != bool(result.images):
        raise CommitError(
            f"{where}: expected images exactly when a sample is edited, got {len(result.images)}"
            f" bytes of images for {len(ok)} samples and rows of {kind.name}"
        )
    if result.directions is not None:
        _check_directions(result.directions, where)
        if kind.name == "edits":
            _check_used(result.rows, result.directions, where)
    if kind.name == "samples":
        _check_found(result.rows, result.directions, where)
    return kind, len(ok), len(failed)


def _check_samples(result: ShardResult, kind: RowKind, where: str) -> tuple[set[int], list[int]]:
    rows = result.rows
    shards = {*pc.unique(rows["shard"]).to_pylist(), *(f.shard for f in result.failures)}
    if shards - {result.shard}:
        raise CommitError(f"{where}: its rows name other shards: {sorted(shards)}")
    places = list(zip(*(rows[column].to_pylist() for column in kind.order), strict=True))
    for before, after in itertools.pairwise(places):
        if before >= after:
            raise CommitError(
                f"{where}: expected distinct rows sorted by ({', '.join(kind.order)}), got"
                f" {before} before {after}"
            )
    ok = set(rows["index"].to_pylist())
    failed = [f.index for f in result.failures if f.index is not None]
    if len(set(failed)) != len(failed):
        twice = sorted({index for index in failed if failed.count(index) > 1})
        raise CommitError(f"{where}: samples {twice[:5]} are more than once in the failures")
    both = sorted(ok.intersection(failed))
    if both:
        raise CommitError(f"{where}: samples {both[:5]} are in the rows and in the failures")
    if len(ok) + len(failed) != result.n_in or ok.union(failed) != set(range(result.n_in)):
        raise CommitError(
            f"{where}: expected each of {result.n_in} samples (0..{result.n_in - 1}) once, got"
            f" {len(ok)} ok and {len(failed)} failed; missing"
            f" {sorted(set(range(result.n_in)) - ok - set(failed))[:5]},"
            f" unexpected {sorted((ok | set(failed)) - set(range(result.n_in)))[:5]}"
        )
    return ok, failed


def _check_directions(table: pa.Table, where: str) -> None:
    try:
        expected = schemas.directions_like(table.schema)
    except ValueError as error:
        raise CommitError(f"{where}: directions: {error}") from error
    if not table.schema.equals(expected):
        raise CommitError(
            f"{where}: expected directions with the schema\n{expected}\ngot\n{table.schema}"
        )


def _check_used(rows: pa.Table, directions: pa.Table, where: str) -> None:
    unknown = used_directions(rows) - set(directions["id"].to_pylist())
    if unknown:
        raise CommitError(
            f"{where}: edits use directions that are not stored with it: {sorted(unknown)[:5]}"
        )


def _check_found(rows: pa.Table, directions: pa.Table | None, where: str) -> None:
    found = Counter(directions["index"].to_pylist() if directions is not None else [])
    counted = dict(zip(rows["index"].to_pylist(), rows["directions"].to_pylist(), strict=True))
    wrong = sorted(i for i in counted.keys() | found.keys() if counted.get(i, 0) != found[i])
    if wrong:
        raise CommitError(
            f"{where}: samples {wrong[:5]} count other numbers of directions than are stored"
        )
