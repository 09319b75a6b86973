"""The commit record: the footer of commit/<shard>.parquet, and how to read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import pyarrow as pa

from lib.files import parquet, row_kinds, storage

COMMIT_VERSION = 4
"""Raised whenever the footer changes its fields or their meaning."""


class CommitDamageError(ValueError):
    """A commit record cannot be read or contradicts itself."""


class NamedFile(NamedTuple):
    """A file that a commit names."""

    folder: str
    name: str
    size: int
    sha256: str

    @property
    def path(self) -> str:
        """Inside the run's folder."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """The footer of a commit. A file name of "" means that there is no such file; its size is then
    0.
    """

    v: int
    fingerprint: str
    shard: str
    rows: row_kinds.Name
    """What the rows of this commit are."""
    n_in: int
    n_ok: int
    n_err: int
    n_edits: int
    marked: Mapping[str, int]
    """Rule of evaluate.filters -> edits of this commit whose column `filtered` names it."""
    dropped: Mapping[str, int]
    """Rule -> edits that are not here because it is the first that they break."""
    n_directions: int
    """Found in this shard, with or without an edit."""
    image: str
    image_sha256: str
    image_bytes: int
    directions: str
    directions_sha256: str
    directions_bytes: int
    own_directions: bool
    """Whether the rows' direction ids are those of the directions file, not of a library."""
    statistics: str
    """This shard's part of what is learned from all images, merged by finalize."""
    statistics_sha256: str
    statistics_bytes: int
    latents: str
    """What was found by inverting its images, where the run stores it."""
    latents_sha256: str
    latents_bytes: int
    errors: str
    errors_sha256: str
    errors_bytes: int
    error_kinds: Mapping[str, int]
    """Kind -> rows in the errors file, unreadable stretches included."""
    input_size: int
    input_sha256: str
    oom_batch: int | None
    versions: Mapping[str, str]

    @property
    def n_rows(self) -> int:
        """Rows of the commit: edits, or samples."""
        return self.n_edits if self.rows == "edits" else self.n_ok

    @property
    def files(self) -> tuple[NamedFile, ...]:
        """All files that it names."""
        found = (
            NamedFile("images", self.image, self.image_bytes, self.image_sha256),
            NamedFile("directions", self.directions, self.directions_bytes, self.directions_sha256),
            NamedFile("statistics", self.statistics, self.statistics_bytes, self.statistics_sha256),
            NamedFile("latents", self.latents, self.latents_bytes, self.latents_sha256),
            NamedFile("errors", self.errors, self.errors_bytes, self.errors_sha256),
        )
        return tuple(file for file in found if file.name)


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
    """The footer and all rows (of the kind `record.rows`) of a commit; raises as `read_commit`."""
    try:
        table = parquet.decode(storage.read_bytes(url), url)
    except parquet.ParquetError as error:
        raise CommitDamageError(f"{error}; delete it and run the same command again") from error
    metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
    record = parse_record(metadata, url)
    kind = row_kinds.of_schema(table.schema)
    if kind is None or kind.name != record.rows:
        schema = row_kinds.BY_NAME[record.rows].schema
        raise CommitDamageError(
            f"{storage.redact(url)}: expected the columns {schema.names} of schema version"
            f" {schema.metadata[b'deltah_schema'].decode()}, got {table.schema.names}"
        )
    return record, table.replace_schema_metadata(kind.schema.metadata)


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
    if values["rows"] not in row_kinds.BY_NAME:
        raise CommitDamageError(
            f"{where}: expected rows of a kind in {sorted(row_kinds.BY_NAME)}, got"
            f" {values['rows']!r}"
        )
    return CommitRecord(**values)
