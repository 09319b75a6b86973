"""Writes out the shard patterns of a config: brace ranges and globs, on any store."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from braceexpand import braceexpand

from lib.files.redaction import redact
from lib.files.retries import ask
from lib.files.store_backends import local_path


def expand(patterns: Sequence[str]) -> list[str]:
    """URLs of `patterns`, sorted and without repetition.

    Brace ranges `{00000..00127}` and lists `{a,b}` are written out; globs (`*`, `?`, `[a-z]`, `**`)
    are matched against files. A URL without a glob is returned unchecked, and so is a local path
    that exists literally.

    Raises:
        FileNotFoundError: a glob matches no file.
        ValueError: a brace is not closed.

    """
    urls: set[str] = set()
    for pattern in patterns:
        for url in _write_out(pattern):
            if not _is_glob(url):
                urls.add(url)
                continue
            matches = _match(url)
            if not matches:
                raise FileNotFoundError(
                    f"no file matches {redact(url)}; expected at least one. "
                    "Check the folder and the pattern"
                )
            urls.update(matches)
    return sorted(urls)


def _write_out(pattern: str) -> list[str]:
    try:
        return list(braceexpand(pattern, escape=False))
    except ValueError:
        raise ValueError(
            f"{redact(pattern)}: every {{ needs its }}, as in shard-{{00000..00127}}.tar"
        ) from None


def _is_glob(url: str) -> bool:
    path = local_path(url)
    if path is not None:
        return glob.has_magic(path) and not os.path.lexists(path)
    # After the `?` of a web address, or of a versioned S3 object, comes a query.
    if url.startswith(("http://", "https://")) or "?versionId=" in url:
        url = url.partition("?")[0]
    return glob.has_magic(url)


def _match(url: str) -> list[str]:
    path = local_path(url)
    if path is not None:
        scheme = url[: len(url) - len(path)] if url.endswith(path) else ""
        return [scheme + name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
    scheme = url[: url.rindex("://") + 3]
    found = ask(url, lambda fs, path: fs.glob(path, detail=True))
    return [
        name if "://" in name else scheme + name.lstrip("/")
        for name, entry in found.items()
        if entry["type"] != "directory"
    ]
