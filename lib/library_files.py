"""Where the files of a direction library lie; light, so that `plan` can look."""

from __future__ import annotations

from lib import storage
from lib.problems import ConfigProblem


def library_files(path: str) -> list[str]:
    """URLs of a library's Parquet files: the file itself, or every `*.parquet` of a folder, sorted.

    Raises:
        ConfigProblem: there is none.
    """
    if path.endswith(".parquet"):
        files = [path] if storage.exists(path) else []
    else:
        files = [storage.join(path, n) for n in storage.list_names(path) if n.endswith(".parquet")]
    if not files:
        raise ConfigProblem(
            f"discover.path: expected a directions Parquet file or a folder of them, found none at"
            f" {storage.redact(path)}"
        )
    return files
