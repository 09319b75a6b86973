"""The commit protocol: a shard's result exists when, and only when, its commit record does.

All other files are written first, under names that hold the hash of their content; the commit
record is the last PUT, and create-only. A writer killed anywhere leaves files that no commit names,
never a result that looks whole and is not; of two writers the first wins, whole. Nothing of when,
where or at which attempt enters these files, so the same config makes the same bytes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import pyarrow as pa

from lib.files import parquet, schemas, storage
from lib.fingerprint import canonical_json
from lib.ledger.commit_record import COMMIT_VERSION, CommitRecord, read_commit, read_commit_rows
from lib.ledger.run_folder import RunFolder
from lib.ledger.shard_result import CommitError, ShardResult, checked
from lib.provenance import package_versions
from lib.receipts import Failure

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


@dataclass(frozen=True, slots=True)
class SealedShard:
    """The bytes of a shard's result, checked, before anything is written."""

    record: CommitRecord
    contents: Mapping[str, bytes]
    """Folder -> the content of the file that the record names there; b"" where it names none."""
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
    for file in record.files:
        _put_content(folder.url(file.folder, file.name), sealed.contents[file.folder])
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
    kind, n_ok, n_err = checked(result)
    directions = result.directions
    contents = {
        "images": result.images,
        "directions": b"" if directions is None else parquet.encode(directions),
        "statistics": result.statistics,
        "latents": result.latents,
        "errors": parquet.encode(_errors_table(result.failures)) if result.failures else b"",
    }
    hashes = {k: hashlib.sha256(data).hexdigest() if data else "" for k, data in contents.items()}
    names = {
        k: folder.content_name(k, result.shard, sha256) if sha256 else ""
        for k, sha256 in hashes.items()
    }
    record = CommitRecord(
        v=COMMIT_VERSION,
        fingerprint=fingerprint,
        shard=result.shard,
        rows=kind.name,
        n_in=result.n_in,
        n_ok=n_ok,
        n_err=n_err,
        n_edits=result.rows.num_rows if kind.name == "edits" else 0,
        marked=_marked(result.rows) if kind.name == "edits" else {},
        dropped=dict(sorted(result.dropped.items())),
        n_directions=0 if directions is None else directions.num_rows,
        image=names["images"],
        image_sha256=hashes["images"],
        image_bytes=len(contents["images"]),
        directions=names["directions"],
        directions_sha256=hashes["directions"],
        directions_bytes=len(contents["directions"]),
        own_directions=directions is not None,
        statistics=names["statistics"],
        statistics_sha256=hashes["statistics"],
        statistics_bytes=len(contents["statistics"]),
        latents=names["latents"],
        latents_sha256=hashes["latents"],
        latents_bytes=len(contents["latents"]),
        errors=names["errors"],
        errors_sha256=hashes["errors"],
        errors_bytes=len(contents["errors"]),
        error_kinds=_counted([failure.kind for failure in result.failures]),
        input_size=result.input_size,
        input_sha256=result.input_sha256,
        oom_batch=result.oom_batch,
        versions=dict(package_versions()),
    )
    rows = result.rows
    if kind.name == "edits":
        column = rows.schema.get_field_index("image")
        image = pa.array([record.image] * rows.num_rows, pa.string())
        rows = rows.set_column(column, rows.schema.field(column), image)
    footer = {"commit": canonical_json(asdict(record))}
    return SealedShard(record, contents, parquet.encode(rows, metadata=footer))


def _put_content(url: str, data: bytes) -> None:
    try:
        storage.create(url, data)
    except FileExistsError:
        # The name is the content, so what is there is ours, unless a store without atomic writes
        # left a part of it.
        if storage.info(url).size != len(data):
            storage.replace(url, data)


def _errors_table(failures: Sequence[Failure]) -> pa.Table:
    ordered = sorted(failures, key=lambda f: (f.index is None, f.index or 0, f.stage, f.kind))
    return pa.Table.from_pylist(
        [{name: getattr(f, name) for name in schemas.ERRORS.names} for f in ordered],
        schema=schemas.ERRORS,
    )


def _marked(edits: pa.Table) -> dict[str, int]:
    return _counted([rule for rule in edits["filtered"].to_pylist() if rule is not None])


def _counted(words: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))
