"""Every touch of a disk or object store: whole-object reads, create-only writes, fresh listings.

A URL is a local path, `file://`, `memory://`, `s3://` or any other fsspec address. Errors other
than those named in a docstring come as OSError, with credentials removed from their text.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

from lib.files import local_disk
from lib.files.local_disk import TEMP_PREFIX
from lib.files.store_backends import (
    ObjectTooLargeError,
    PlainErrors,
    backend,
    local_path,
    protocols,
    redact,
    store_code,
    upload_options,
)
from lib.files.url_patterns import expand

__all__ = [
    "TEMP_PREFIX",
    "ObjectInfo",
    "ObjectTooLargeError",
    "basename",
    "create",
    "delete",
    "exists",
    "expand",
    "info",
    "join",
    "list_names",
    "list_tree",
    "read_bytes",
    "read_start",
    "redact",
    "replace",
]

_CONFLICT_TRIES = 5
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
    """The whole object, by one GET.

    Raises:
        FileNotFoundError: there is no such object.
        ObjectTooLargeError: it has more than `max_bytes` bytes; it is then not read.

    """
    path = local_path(url)
    if path is not None:
        with open(path, "rb") as file:
            if max_bytes is None:
                return file.read()
            _check_size(url, os.fstat(file.fileno()).st_size, max_bytes)
            data = file.read(max_bytes + 1)
    else:
        with PlainErrors(url):
            fs, path = backend(url)
            if max_bytes is None:
                return bytes(fs.cat_file(path))
            size = fs.info(path).get("size")
            if size is None:  # a web server that does not say
                with fs.open(path, "rb") as file:
                    data = bytes(file.read(max_bytes + 1))
            else:
                _check_size(url, size, max_bytes)
                data = bytes(fs.cat_file(path))
    _check_size(url, len(data), max_bytes)
    return data


def read_start(url: str, count: int) -> bytes:
    """The first `count` bytes of an object, or all if it has no more; raises FileNotFoundError."""
    path = local_path(url)
    if path is not None:
        with open(path, "rb") as file:
            return file.read(count)
    with PlainErrors(url):
        fs, path = backend(url)
        return bytes(fs.cat_file(path, start=0, end=count))


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
    with PlainErrors(url):
        fs, path = backend(url)
        found = fs.info(path)
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
    with PlainErrors(url):
        fs, path = backend(url)
        return bool(fs.exists(path))


def create(url: str, data: bytes) -> None:
    """Write a new object, whole or not at all.

    Local disk: see `lib.files.local_disk.create`. S3: `If-None-Match: *` on the single PUT, or on
    the completion of a multipart upload; the client sends a PUT again when its answer was lost, and
    the second one may then report our own object as existing. `memory://`: a lock of this process.
    Other stores: as their fsspec backend does `mode="create"`, which in fsspec's base class is a
    look followed by a write, not atomic.

    Raises:
        FileExistsError: there is an object of this name; it is left as it was.

    """
    path = local_path(url)
    if path is not None:
        local_disk.create(path, data)
        return
    with PlainErrors(url):
        fs, path = backend(url)
        if "memory" in protocols(fs):
            with _memory_lock:
                fs.pipe_file(path, data, mode="create")
            return
        for tries_left in reversed(range(_CONFLICT_TRIES)):
            try:
                fs.pipe_file(path, data, mode="create", **upload_options(fs, path))
                return
            except OSError as error:
                # Two writers in the same moment: S3 refuses one for now and asks it to try again.
                if store_code(error) != "ConditionalRequestConflict" or not tries_left:
                    raise
                time.sleep(0.1 * 2.0 ** (_CONFLICT_TRIES - tries_left))


def replace(url: str, data: bytes) -> None:
    """Write an object, atomically in place of the one that may be there."""
    path = local_path(url)
    if path is not None:
        local_disk.replace(path, data)
        return
    with PlainErrors(url):
        fs, path = backend(url)
        fs.pipe_file(path, data, **upload_options(fs, path))


def delete(url: str) -> None:
    """Remove an object; one that is not there is fine."""
    path = local_path(url)
    try:
        if path is not None:
            os.unlink(path)
            return
        with PlainErrors(url):
            fs, path = backend(url)
            fs.rm_file(path)
    except FileNotFoundError:
        return


def list_names(folder: str) -> list[str]:
    """Sorted names of the files directly in `folder`, listed afresh; [] if it is missing."""
    path = local_path(folder)
    try:
        if path is not None:
            return local_disk.list_names(path)
        with PlainErrors(folder):
            fs, path = backend(folder)
            found = fs.ls(path, detail=True)
    except FileNotFoundError:
        return []
    own = path.strip("/")
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
        with PlainErrors(folder):
            fs, path = backend(folder)
            found = fs.find(path)
    except FileNotFoundError:
        return []
    own = path.strip("/")
    relative = (name.strip("/")[len(own) :].lstrip("/") for name in found if name[-1] != "/")
    return sorted(name for name in relative if name)


def _check_size(url: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise ObjectTooLargeError(
            f"{redact(url)} has {size} bytes or more; at most {max_bytes} are allowed. "
            "Make smaller shards or raise the limit"
        )
