"""Parquet bytes that are the same for the same content, and footers read without reading rows."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from lib.files import storage

ROW_GROUP_BYTES = 4 * 2**20
"""Uncompressed size of a row group: what a reader fetches at least."""

_TAIL_BYTES = 64 * 2**10
_MAGIC = b"PAR1"


class ParquetError(ValueError):
    """The bytes are not a whole Parquet file."""


def encode(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """`table` as a Parquet file (zstd), with `metadata` added to its schema metadata.

    The bytes depend on the content, the schema and the pyarrow release alone: not on how the table
    is cut into chunks, and no moment is written.
    """
    known = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    schema = table.schema.with_metadata(dict(sorted((known | dict(metadata or {})).items())))
    buffer = pa.BufferOutputStream()
    with writer(buffer, schema) as file:
        write(file, table)
    return bytes(buffer.getvalue())


def writer(target: pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    """A ParquetWriter with the settings of every file of a run."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    return pq.ParquetWriter(
        target, schema, version="2.6", compression="zstd", compression_level=3, use_dictionary=texts
    )


def write(file: pq.ParquetWriter, table: pa.Table) -> None:
    """Append `table` in row groups of about ROW_GROUP_BYTES; the last one is what is left."""
    if table.num_rows == 0:
        return
    table = table.combine_chunks().cast(file.schema)
    row_bytes = max(1, table.nbytes // table.num_rows)
    file.write_table(table, row_group_size=max(1, ROW_GROUP_BYTES // row_bytes))


def decode(data: bytes, url: str) -> pa.Table:
    """All rows of the Parquet file `data`; `url` is for the message.

    Raises:
        ParquetError: it is not a whole Parquet file.

    """
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as file:
            return file.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise ParquetError(_damage(url, str(error))) from error


def read_metadata(url: str) -> dict[str, str]:
    """The key-value metadata in the footer of a Parquet file, by reading its last 64 KiB.

    Raises:
        FileNotFoundError: there is no such file.
        ParquetError: it is not a whole Parquet file.

    """
    tail = storage.read_tail(url, _TAIL_BYTES)
    if len(tail) < 12 or tail[-4:] != _MAGIC:
        raise ParquetError(_damage(url, "it does not end as one"))
    if int.from_bytes(tail[-8:-4], "little") + 8 > len(tail):
        tail = storage.read_bytes(url)
    try:
        found = pq.read_metadata(pa.BufferReader(tail)).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise ParquetError(_damage(url, str(error))) from error
    return {key.decode(): value.decode(errors="replace") for key, value in found.items()}


def _damage(url: str, reason: str) -> str:
    return f"{storage.redact(url)}: expected a whole Parquet file: {reason}"
