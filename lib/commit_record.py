"""The commit record: the footer of commit/<shard>.parquet, and how to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from lib import parquet, schemas, storage

COMMIT_VERSION = 1
"""Raised whenever the footer changes its fields or their meaning."""


class CommitDamageError(ValueError):
    """A commit record cannot be read or contradicts itself."""


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """The footer of a commit. A file name of "" means that there is no such file; its size is then
    0.
    """

    v: int
    fingerprint: str
    shard: str
    n_in: int
    n_ok: int
    n_err: int
    n_edits: int
    image: str
    image_sha256: str
    image_bytes: int
    directions: str
    directions_sha256: str
    directions_bytes: int
    own_directions: bool
    """Whether the rows' direction ids are those of the directions file, not of a library."""
    errors: str
    errors_sha256: str
    errors_bytes: int
    error_kinds: Mapping[str, int]
    """Kind -> rows in the errors file, unreadable stretches included."""
    input_size: int
    input_sha256: str
    oom_batch: int | None
    versions: Mapping[str, str]


def read_commit(url: str) -> CommitRecord:
    """The footer of a commit; its rows are not read.

    Raises:
        FileNotFoundError: the shard is not committed.
        CommitDamageError: the file is not a commit of this version.

    """
    try:
        return parse_record(parquet.read_metadata(url), url)
    except parquet.ParquetError as error:
        raise CommitDamageError(f"{error}; delete it and run the same command again") from error


def read_commit_rows(url: str) -> tuple[CommitRecord, pa.Table]:
    """The footer and all rows (schemas.EDITS) of a commit; raises as `read_commit`."""
    try:
        table = parquet.decode(storage.read_bytes(url), url)
    except parquet.ParquetError as error:
        raise CommitDamageError(f"{error}; delete it and run the same command again") from error
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    record = parse_record(metadata, url)
    if not table.schema.equals(schemas.EDITS):
        raise CommitDamageError(
            f"{storage.redact(url)}: expected the columns {schemas.EDITS.names} of schema version"
            f" {schemas.SCHEMA_VERSION}, got {table.schema.names}"
        )
    return record, table.replace_schema_metadata(schemas.EDITS.metadata)


def parse_record(metadata: Mapping[str, str], url: str) -> CommitRecord:
    """The commit record in a Parquet file's metadata; raises CommitDamageError."""
    where = storage.redact(url)
    try:
        values: dict[str, Any] = json.loads(metadata["commit"])
    except (KeyError, ValueError) as error:
        raise CommitDamageError(
            f"{where}: expected JSON under the metadata key `commit`"
        ) from error
    names = {field.name for field in fields(CommitRecord)}
    if values.get("v") != COMMIT_VERSION or values.keys() != names:
        raise CommitDamageError(
            f"{where}: expected a commit of version {COMMIT_VERSION} with the fields"
            f" {sorted(names)},"
            f" got version {values.get('v')} with {sorted(values)}"
        )
    return CommitRecord(**values)
