"""The commit protocol: a shard's result exists when, and only when, its commit record does.

Images, directions and errors are written first, under names that hold the hash of their content;
the commit record is the last PUT, and create-only. A writer killed anywhere leaves files that no
commit names, never a result that looks whole and is not; of two writers the first wins, whole.
Nothing of when, where or at which attempt enters these files, so the same config makes the same
bytes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from lib import parquet, schemas, storage
from lib.commit_record import COMMIT_VERSION, CommitRecord, read_commit, read_commit_rows
from lib.fingerprint import canonical_json
from lib.provenance import package_versions
from lib.receipts import Failure
from lib.run_folder import RunFolder

__all__ = [
    "CommitError",
    "CommitRecord",
    "SealedShard",
    "ShardResult",
    "commit",
    "read_commit",
    "read_commit_rows",
    "seal",
]


class CommitError(ValueError):
    """The result contradicts itself and must not be committed: a defect of the pipeline that made
    it.
    """


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a pipeline hands over for one input shard."""

    shard: str
    n_in: int
    """Samples found in the shard; each is in `edits` or in `failures`."""
    input_size: int
    """Bytes."""
    input_sha256: str
    """Of the input shard, so that a changed input is seen; where it lies is in inputs.json."""
    images: bytes
    """The tar of edited images, deterministic; b"" when no sample could be done."""
    edits: pa.Table
    """schemas.EDITS, sorted by (index, edit), at least one row per sample that is ok; `commit`
    fills `image`.
    """
    directions: pa.Table | None
    """schemas.directions(...): the directions found here; None when the run reads them from a
    library.
    """
    failures: Sequence[Failure]
    """One per sample that could not be done, and one without an index per unreadable stretch of the
    shard.
    """
    oom_batch: int | None = None
    """The smaller batch that running out of memory forced; None when the configured one was used.
    """


@dataclass(frozen=True, slots=True)
class SealedShard:
    """The bytes of a shard's result, checked, before anything is written."""

    record: CommitRecord
    images: bytes
    directions: bytes
    errors: bytes
    commit: bytes


def commit(
    folder: RunFolder, result: ShardResult, fingerprint: str
) -> Literal["committed", "lost_race"]:
    """Write a shard's result and make it exist.

    `lost_race`: another writer's commit with other bytes stands; what was written here is left for
    gc. Finding a commit of exactly our bytes (our own PUT whose answer was lost, or a twin) is
    `committed`.

    Raises:
        CommitError: the result contradicts itself; nothing was written. OSError: the store failed;
        the shard is not committed, unless the answer to the very last PUT was lost.

    """
    sealed = seal(folder, result, fingerprint)
    record = sealed.record
    for kind, name, data in (
        ("images", record.image, sealed.images),
        ("directions", record.directions, sealed.directions),
        ("errors", record.errors, sealed.errors),
    ):
        if name:
            _put_content(folder.url(kind, name), data)
    url = folder.commit_url(result.shard)
    try:
        storage.create(url, sealed.commit)
    except FileExistsError:
        return "committed" if storage.read_bytes(url) == sealed.commit else "lost_race"
    return "committed"


def seal(folder: RunFolder, result: ShardResult, fingerprint: str) -> SealedShard:
    """Check a result and make the bytes of all its files; pure, the folder only gives names.

    Raises:
        CommitError: the result contradicts itself.

    """
    n_ok, n_err = _check(result)
    errors = b""
    if result.failures:
        errors = parquet.encode(_errors_table(result.failures))
    directions = b"" if result.directions is None else parquet.encode(result.directions)
    image_sha, directions_sha, errors_sha = (
        hashlib.sha256(data).hexdigest() if data else ""
        for data in (result.images, directions, errors)
    )
    record = CommitRecord(
        v=COMMIT_VERSION,
        fingerprint=fingerprint,
        shard=result.shard,
        n_in=result.n_in,
        n_ok=n_ok,
        n_err=n_err,
        n_edits=result.edits.num_rows,
        image=folder.image_name(result.shard, image_sha) if image_sha else "",
        image_sha256=image_sha,
        image_bytes=len(result.images),
        directions=folder.directions_name(result.shard, directions_sha) if directions_sha else "",
        directions_sha256=directions_sha,
        directions_bytes=len(directions),
        own_directions=result.directions is not None,
        errors=folder.errors_name(result.shard, errors_sha) if errors_sha else "",
        errors_sha256=errors_sha,
        errors_bytes=len(errors),
        error_kinds=_counted([failure.kind for failure in result.failures]),
        input_size=result.input_size,
        input_sha256=result.input_sha256,
        oom_batch=result.oom_batch,
        versions=dict(package_versions()),
    )
    column = schemas.EDITS.get_field_index("image")
    names = pa.array([record.image] * result.edits.num_rows, pa.string())
    rows = result.edits.set_column(column, schemas.EDITS.field(column), names)
    footer = {"commit": canonical_json(asdict(record))}
    return SealedShard(
        record, result.images, directions, errors, parquet.encode(rows, metadata=footer)
    )


def _put_content(url: str, data: bytes) -> None:
    try:
        storage.create(url, data)
    except FileExistsError:
        # The name is the content, so what is there is ours, unless a store without atomic writes
        # left a part of it.
        if storage.info(url).size != len(data):
            storage.replace(url, data)


def _check(result: ShardResult) -> tuple[int, int]:
    """(samples ok, samples in error), or CommitError."""
    where = f"shard {result.shard}"
    if not result.edits.schema.equals(schemas.EDITS):
        raise CommitError(
            f"{where}: expected edits with the schema\n{schemas.EDITS}\ngot\n{result.edits.schema}"
        )
    shards = {*pc.unique(result.edits["shard"]).to_pylist(), *(f.shard for f in result.failures)}
    if shards - {result.shard}:
        raise CommitError(f"{where}: its rows name other shards: {sorted(shards)}")
    indices = result.edits["index"].to_pylist()
    pairs = list(zip(indices, result.edits["edit"].to_pylist(), strict=True))
    for before, after in itertools.pairwise(pairs):
        if before >= after:
            raise CommitError(
                f"{where}: expected distinct rows sorted by (index, edit), got {before} before"
                f" {after}"
            )
    ok = set(indices)
    failed = [f.index for f in result.failures if f.index is not None]
    if len(set(failed)) != len(failed):
        twice = sorted({index for index in failed if failed.count(index) > 1})
        raise CommitError(f"{where}: samples {twice[:5]} are more than once in the failures")
    both = sorted(ok.intersection(failed))
    if both:
        raise CommitError(f"{where}: samples {both[:5]} are in the edits and in the failures")
    if len(ok) + len(failed) != result.n_in or ok.union(failed) != set(range(result.n_in)):
        raise CommitError(
            f"{where}: expected each of {result.n_in} samples (0..{result.n_in - 1}) once, got"
            f" {len(ok)} ok"
            f" and {len(failed)} failed; missing"
            f" {sorted(set(range(result.n_in)) - ok - set(failed))[:5]},"
            f" unexpected {sorted((ok | set(failed)) - set(range(result.n_in)))[:5]}"
        )
    if bool(ok) != bool(result.images):
        raise CommitError(
            f"{where}: expected images exactly when a sample is ok, got {len(result.images)} bytes"
            f" of images"
            f" for {len(ok)} samples"
        )
    _check_directions(result, where)
    return len(ok), len(failed)


def _check_directions(result: ShardResult, where: str) -> None:
    table = result.directions
    if table is None:
        return
    try:
        expected = schemas.directions_like(table.schema)
    except ValueError as error:
        raise CommitError(f"{where}: directions: {error}") from error
    if not table.schema.equals(expected):
        raise CommitError(
            f"{where}: expected directions with the schema\n{expected}\ngot\n{table.schema}"
        )
    unknown = set(result.edits["direction"].to_pylist()) - set(table["id"].to_pylist())
    if unknown:
        raise CommitError(
            f"{where}: edits use directions that are not stored with it: {sorted(unknown)[:5]}"
        )


def _errors_table(failures: Sequence[Failure]) -> pa.Table:
    ordered = sorted(failures, key=lambda f: (f.index is None, f.index or 0, f.stage, f.kind))
    return pa.Table.from_pylist(
        [{name: getattr(f, name) for name in schemas.ERRORS.names} for f in ordered],
        schema=schemas.ERRORS,
    )


def _counted(words: Sequence[str]) -> dict[str, int]:
    return {word: words.count(word) for word in sorted(set(words))}
