"""Which fsspec backend serves a URL, and its errors as those Python has for files.

An error's text never holds credentials: URLs may carry passwords and signatures.
"""

from __future__ import annotations

import errno
import os
import re
from types import TracebackType
from typing import Any

import fsspec

UPLOAD_CHUNK_BYTES = 16 * 2**20
"""S3 objects of two chunks and more are uploaded as parallel parts of this size."""

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".png": "image/png",
}
"""Of what browsers open where it lies: without one they would download a report."""

_KEPT_CLASSES: tuple[type[OSError], ...] = (
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    TimeoutError,
)


class ObjectTooLargeError(ValueError):
    """An object is larger than its reader allows."""


def redact(text: str) -> str:
    """`text` with every URL's `user:password@` and query values replaced by stars."""
    text = re.sub(r"(?<=://)[^/\s]*@", "***@", text)
    return re.sub(r"([?&][^=&?\s'\"]+)=[^&\s'\"]*", r"\1=***", text)


def local_path(url: str) -> str | None:
    """The path of a local URL, None for another store."""
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            return url.removeprefix(scheme)
    return None if "://" in url else os.path.expanduser(url)


def backend(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of `url` and the path in it.

    Listings are never cached: a resume, or a look for a rival's commit, must see what is there now.
    """
    fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return fs, str(path)


def protocols(fs: Any) -> tuple[str, ...]:
    """The URL schemes that a backend serves."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def upload_options(fs: Any, path: str) -> dict[str, int | str]:
    """Arguments for the backend's `pipe_file` of the object at `path`."""
    if "s3" not in protocols(fs):
        return {}
    options: dict[str, int | str] = {"chunksize": UPLOAD_CHUNK_BYTES}
    kind = _CONTENT_TYPES.get(os.path.splitext(path)[1])
    return options | ({"ContentType": kind} if kind else {})


def store_code(error: BaseException | None) -> str:
    """The error code that an S3 server sent, "" if none."""
    for candidate in (error, getattr(error, "__cause__", None)):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


class PlainErrors:
    """A `with` block that turns what a backend raises for `url` into an OSError.

    Backends raise classes of their own HTTP clients, which this module cannot name without
    importing them. An error of Python itself (TypeError, ImportError, ...) passes unchanged.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, ObjectTooLargeError):
            return
        if not isinstance(error, OSError) and type(error).__module__ == "builtins":
            return
        # The backend's own text may hold credentials: it must not reach a traceback either.
        raise _plain(error, redact(self._url)) from None


def _plain(error: Exception, where: str) -> OSError:
    if isinstance(error, FileExistsError) or store_code(error) in ("PreconditionFailed", "412"):
        return FileExistsError(f"{where}: there is already an object of this name")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{where} does not exist")
    text = f"{where}: {redact(str(error)) or type(error).__name__}"
    for known in _KEPT_CLASSES:
        if isinstance(error, known):
            return known(text)
    return OSError(getattr(error, "errno", None) or errno.EIO, text)
