"""What the files of a probe say of those of the run: bytes a shard, and bytes an image."""

from __future__ import annotations

import tarfile

import pyarrow as pa

from lib.files import parquet, storage
from lib.ledger.commit_record import CommitRecord, read_commit_rows
from lib.ledger.run_folder import RunFolder
from pipelines.output_sizes import FileSize, MeasuredOutput


def measured_output(folder: RunFolder, shard: str, images: int, *, coreset: bool) -> MeasuredOutput:
    """Of a shard of which so many images came through; `coreset`: its statistics are one."""
    url = folder.commit_url(shard)
    record, _ = read_commit_rows(url)
    commit = parquet.decode(storage.read_bytes(url), url)  # with the record in its footer
    directions = FileSize()
    if record.directions:
        table_url = folder.url("directions", record.directions)
        directions = _table_size(parquet.decode(storage.read_bytes(table_url), table_url), images)
    return MeasuredOutput(
        images=_tar_size(folder, record, images),
        directions=directions,
        latents=FileSize(image=record.latents_bytes / images),
        commit=_table_size(commit, images),
        coreset=FileSize(record.statistics_bytes if coreset else 0),
    )


def first_error(folder: RunFolder, shard: str) -> str:
    """Why the first image of a shard could not be done."""
    record, _ = read_commit_rows(folder.commit_url(shard))
    url = folder.url("errors", record.errors)
    row = parquet.decode(storage.read_bytes(url), url).to_pylist()[0]
    return f"{row['stage']}: {row['message']}"


def _tar_size(folder: RunFolder, record: CommitRecord, images: int) -> FileSize:
    """Without the padding at its end: tars are whole records, half of one more on average."""
    if not record.image:
        return FileSize()
    used = len(storage.read_bytes(folder.url("images", record.image)).rstrip(b"\0"))
    members = -(-used // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return FileSize(2 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE / 2, members / images)


def _table_size(table: pa.Table, images: int) -> FileSize:
    """What the second row and those behind it add, and what is there without any."""
    whole, one = len(parquet.encode(table)), len(parquet.encode(table.slice(0, 1)))
    if table.num_rows == 1:
        return FileSize(image=whole / images)
    row = (whole - one) / (table.num_rows - 1)
    return FileSize(one - row, row * table.num_rows / images)
