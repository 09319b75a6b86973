"""merged/directions.parquet: the directions learned from all images of a run, from the statistics
of its shards. torch is imported only where a run has statistics.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lib.discovery.statistics_files import StatisticsDamageError
from lib.files import parquet, storage
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import ManifestFile

FILE_NAME = "directions.parquet"


@dataclass(frozen=True, slots=True)
class Merged:
    """What was made."""

    files: list[ManifestFile]
    left_out: Mapping[str, str]
    """Label (or "pca") -> why no direction could be made of it."""


def write_merged(folder: RunFolder, statistics: Sequence[str]) -> Merged:
    """Merge the statistics files, in the order given, and write the directions.

    Raises:
        FileNotFoundError: a file is gone.
        CommitDamageError: a file cannot be read, or is of another study than the first.
    """
    if not statistics:
        return Merged([], {})
    from lib.directions.direction_table import to_table
    from lib.discovery.study import StudySums

    sums = StudySums()
    for url in statistics:
        try:
            sums.add(storage.read_bytes(url), storage.redact(url))
        except StatisticsDamageError as error:
            raise CommitDamageError(str(error)) from error
    directions, left_out = sums.directions()
    if not directions:
        return Merged([], left_out)
    table = to_table(directions, sums.study.vector_dtype)
    data = parquet.encode(table)
    storage.replace(folder.url("merged", FILE_NAME), data)
    file = ManifestFile(
        name=FILE_NAME,
        rows=table.num_rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    return Merged([file], left_out)
