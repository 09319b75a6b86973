"""Every touch of a disk or object store: whole-object reads, create-only writes, fresh listings.

A URL is a local path, `file://`, `memory://`, `s3://` or any other fsspec address. What a remote
store refuses for a while is asked again (`lib.files.retries`); errors other than those named in a
docstring come as OSError, with credentials removed from their text.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Any

from lib.files import local_disk
from lib.files.local_disk import TEMP_PREFIX
from lib.files.range_reads import read_object
from lib.files.redaction import redact
from lib.files.retries import ask, patience
from lib.files.store_backends import (
    is_s3,
    local_path,
    protocols,
    upload_options,
    uploads_in_parts,
)
from lib.files.store_errors import (
    ObjectReplacedError,
    ObjectTooLargeError,
    StoreUnavailableError,
)
from lib.files.url_patterns import expand

__all__ = [
    "TEMP_PREFIX",
    "ObjectInfo",
    "ObjectReplacedError",
    "ObjectTooLargeError",
    "StoreUnavailableError",
    "ask",
    "basename",
    "create",
    "delete",
    "exists",
    "expand",
    "info",
    "join",
    "list_names",
    "list_tree",
    "patience",
    "read_bytes",
    "read_start",
    "read_tail",
    "redact",
    "replace",
]

_VERSION_FIELDS = ("ETag", "etag", "md5Hash", "content_md5", "crc32c")
_MOMENT_FIELDS = ("mtime", "LastModified", "created")
_memory_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What identifies one version of an object without reading it."""

    size: int
    """Bytes."""
    etag: str
    """The store's etag or checksum; "mtime_ns-size" for a local file."""


def join(folder: str, *names: str) -> str:
    """`folder` and `names` with one slash between each two."""
    if not names:
        return folder
    return (folder if folder.endswith("/") else folder + "/") + "/".join(names)


def basename(url: str) -> str:
    """The last part of `url`, without a query."""
    if local_path(url) is None:
        url = url.partition("?")[0]
    return url.rstrip("/").rsplit("/", 1)[-1]


def read_bytes(url: str, max_bytes: int | None = None) -> bytes:
    """The whole object: of S3 by one GET, or by several at once where it is large.

    Raises:
        FileNotFoundError: there is no such object.
        ObjectTooLargeError: it has more than `max_bytes` bytes; it is then not read.
        ObjectReplacedError: it was written anew in the middle.

    """
    path = local_path(url)
    if path is not None:
        with open(path, "rb") as file:
            if max_bytes is None:
                return file.read()
            _check_size(url, os.fstat(file.fileno()).st_size, max_bytes)
            data = file.read(max_bytes + 1)
    elif is_s3(url):
        return read_object(url, lambda size: _check_size(url, size, max_bytes))
    else:
        data = ask(url, lambda fs, path: _read_whole(url, fs, path, max_bytes))
    _check_size(url, len(data), max_bytes)
    return data


def _read_whole(url: str, fs: Any, path: str, max_bytes: int | None) -> bytes:
    if max_bytes is None:
        return bytes(fs.cat_file(path))
    size = fs.info(path).get("size")
    if size is None:  # a web server that does not say
        with fs.open(path, "rb") as file:
            return bytes(file.read(max_bytes + 1))
    _check_size(url, size, max_bytes)
    return bytes(fs.cat_file(path))


def read_tail(url: str, size: int) -> bytes:
    """The last `size` bytes of an object, or all of a smaller one, by one GET.

    Raises:
        FileNotFoundError: there is no such object.

    """
    return ask(url, lambda fs, path: bytes(fs.cat_file(path, start=-size)))


def read_start(url: str, count: int) -> bytes:
    """The first `count` bytes of an object, or all if it has no more; raises FileNotFoundError."""
    path = local_path(url)
    if path is not None:
        with open(path, "rb") as file:
            return file.read(count)
    return ask(url, lambda fs, path: bytes(fs.cat_file(path, start=0, end=count)))


def info(url: str) -> ObjectInfo:
    """Size and version of an object.

    Raises:
        FileNotFoundError: there is no such object.
        IsADirectoryError: it is a folder.

    """
    path = local_path(url)
    if path is not None:
        stat = os.stat(path)
        if os.path.isdir(path):
            raise IsADirectoryError(f"{url} is a folder; expected a file")
        return ObjectInfo(stat.st_size, f"{stat.st_mtime_ns}-{stat.st_size}")
    found = ask(url, lambda fs, path: fs.info(path))
    if found["type"] == "directory":
        raise IsADirectoryError(f"{redact(url)} is a folder; expected an object")
    version = next((found[name] for name in _VERSION_FIELDS if found.get(name)), None)
    if version is None:
        moment = next((found[name] for name in _MOMENT_FIELDS if name in found), "")
        version = f"{moment}-{found['size']}"
    return ObjectInfo(int(found["size"] or 0), str(version).strip('"'))


def exists(url: str) -> bool:
    """Whether there is a file or folder at `url` now."""
    path = local_path(url)
    if path is not None:
        return os.path.exists(path)
    try:
        ask(url, lambda fs, path: fs.info(path))  # fsspec's own `exists` takes any error for "no"
    except FileNotFoundError:
        return False
    return True


def create(url: str, data: bytes) -> None:
    """Write a new object, whole or not at all.

    Local disk: see `lib.files.local_disk.create`. S3: `If-None-Match: *` on the single PUT, or on
    the completion of a multipart upload. `memory://`: a lock of this process. Other stores: as
    their fsspec backend does `mode="create"`, which in fsspec's base class is a look followed by a
    write, not atomic.

    Raises:
        FileExistsError: there is an object of this name; it is left as it was. It may be our own,
            of a PUT that was sent again because its answer was lost: who must know compares.

    """
    path = local_path(url)
    if path is not None:
        local_disk.create(path, data)
    else:
        ask(url, lambda fs, path: _create(fs, path, data))


def _create(fs: Any, path: str, data: bytes) -> None:
    if "memory" in protocols(fs):
        with _memory_lock:
            fs.pipe_file(path, data, mode="create")
        return
    if uploads_in_parts(fs, len(data)) and fs.exists(path):
        # The condition would be looked at when all is sent; and it may be our own, completed.
        raise FileExistsError
    fs.pipe_file(path, data, mode="create", **upload_options(fs, path))


def replace(url: str, data: bytes) -> None:
    """Write an object, atomically in place of the one that may be there."""
    path = local_path(url)
    if path is not None:
        local_disk.replace(path, data)
    else:
        ask(url, lambda fs, path: fs.pipe_file(path, data, **upload_options(fs, path)))


def delete(url: str) -> None:
    """Remove an object; one that is not there is fine."""
    path = local_path(url)
    try:
        if path is not None:
            os.unlink(path)
        else:
            ask(url, lambda fs, path: fs.rm_file(path))
    except FileNotFoundError:
        return


def list_names(folder: str) -> list[str]:
    """Sorted names of the files directly in `folder`, listed afresh; [] if it is missing."""
    path = local_path(folder)
    try:
        if path is not None:
            return local_disk.list_names(path)
        own, found = ask(folder, lambda fs, path: (path.strip("/"), fs.ls(path, detail=True)))
    except FileNotFoundError:
        return []
    return sorted(
        entry["name"].rsplit("/", 1)[-1]
        for entry in found
        if entry["type"] != "directory" and entry["name"].strip("/") != own
    )


def list_tree(folder: str) -> list[str]:
    """Sorted paths of all files under `folder`, relative to it with `/`; [] if it is missing."""
    path = local_path(folder)
    if path is not None:
        return local_disk.list_tree(path)
    try:
        own, found = ask(folder, lambda fs, path: (path.strip("/"), fs.find(path)))
    except FileNotFoundError:
        return []
    relative = (name.strip("/")[len(own) :].lstrip("/") for name in found if name[-1] != "/")
    return sorted(name for name in relative if name)


def _check_size(url: str, size: int, max_bytes: int | None) -> None:
    if max_bytes is not None and size > max_bytes:
        raise ObjectTooLargeError(
            f"{redact(url)} has {size} bytes or more; at most {max_bytes} are allowed. "
            "Make smaller shards or raise the limit"
        )
