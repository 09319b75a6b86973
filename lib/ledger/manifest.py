"""manifest/: the rows of all commits in a few large files, written in bounded memory and
rebuildable.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

from lib.files import parquet, storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import ManifestFile

ROWS_PER_FILE = 1_000_000
"""A file is closed behind the first commit that brings it to so many rows."""

_BUFFERED_ROWS = 50_000


class ManifestWriter:
    """Appends tables and rolls over to `manifest/<prefix>-00000.parquet`, `-00001`, ...

    What it writes depends on the tables and their order alone. At most one file (compressed) is
    held in memory.
    """

    def __init__(
        self, folder: RunFolder, prefix: str, schema: pa.Schema, rows_per_file: int = ROWS_PER_FILE
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._schema = schema
        self._rows_per_file = rows_per_file
        self._buffered: list[pa.Table] = []
        self._buffered_rows = 0
        self._rows = 0
        self._files: list[ManifestFile] = []
        self._open()

    def add(self, table: pa.Table) -> None:
        """Append rows of the writer's schema."""
        self._buffered.append(table)
        self._buffered_rows += table.num_rows
        self._rows += table.num_rows
        if self._buffered_rows >= _BUFFERED_ROWS:
            self._flush()
        if self._rows >= self._rows_per_file:
            self._close()
            self._open()

    def finish(self, *, keep_empty: bool) -> list[ManifestFile]:
        """Write what is left; without any row, an empty file is written only if `keep_empty`."""
        if self._rows or (keep_empty and not self._files):
            self._close()
        return self._files

    def _open(self) -> None:
        self._rows = 0
        self._sink = pa.BufferOutputStream()
        self._writer = parquet.writer(self._sink, self._schema)

    def _flush(self) -> None:
        if self._buffered_rows:
            parquet.write(self._writer, pa.concat_tables(self._buffered))
        self._buffered = []
        self._buffered_rows = 0

    def _close(self) -> None:
        self._flush()
        self._writer.close()
        data = bytes(self._sink.getvalue())
        name = f"{self._prefix}-{len(self._files):05d}.parquet"
        storage.replace(self._folder.url("manifest", name), data)
        self._files.append(
            ManifestFile(
                name=name,
                rows=self._rows,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
            )
        )
