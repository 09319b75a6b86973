"""Where the files of a direction library lie; light, so that `plan` can look."""

from __future__ import annotations

from lib.files import storage
from lib.problems import ConfigProblem


def library_files(path: str, option: str = "discover.path", *, optional: bool = False) -> list[str]:
    """URLs of the Parquet files of a library, in the order in which they are read.

    `path` is a directions file; a library folder (its `directions.parquet`, beside a
    `library.json`); a run folder (`directions/*.parquet`, then `merged/*.parquet`); or any other
    folder of directions files. `option` is what an error calls it. `optional`: there may be none,
    because the folder has learned editors.

    Raises:
        ConfigProblem: there is none.
    """
    if path.endswith(".parquet"):
        files = [path] if storage.exists(path) else []
    else:
        names = storage.list_names(path)
        if "run.json" in names:
            files = _tables(storage.join(path, "directions"))
            files += _tables(storage.join(path, "merged"))
        elif "library.json" in names:
            files = [storage.join(path, name) for name in names if name == "directions.parquet"]
        else:
            files = _tables(path)
    if not files and not optional:
        raise ConfigProblem(
            f"{option}: expected a directions Parquet file, a folder of them, a run folder or a"
            f" library folder, found none at {storage.redact(path)}"
        )
    return files


def _tables(folder: str) -> list[str]:
    return [storage.join(folder, n) for n in storage.list_names(folder) if n.endswith(".parquet")]
