"""Local files with the guarantee of an object store: a file appears whole or not at all.

fsspec's local writes are neither atomic nor synced (its transaction moves files over from the
system's temporary folder), so `lib.files.storage` comes here for local paths.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TEMP_PREFIX = ".tmp-"
"""Writes in progress have this name prefix; what a killed writer leaves is swept by `gc`."""

_SWEPT_TRIES = 10
_LINK_UNSUPPORTED = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EMLINK}
)


def create(path: str, data: bytes) -> None:
    """Write a new file, synced to disk: a temporary file in the same folder, then a hard link.

    Where links are not supported the name is reserved by an empty file (O_EXCL) that is then
    replaced, so a crash at that instant leaves an empty file, never a torn one. Missing folders
    are made.

    Raises:
        FileExistsError: there is a file of this name; it is left as it was.

    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "there is already a file of this name", path)
    _put(path, data, _link)


def replace(path: str, data: bytes) -> None:
    """Write a file, synced to disk, atomically in place of the one that may be there."""
    _put(path, data, os.replace)


def _put(path: str, data: bytes, move: Callable[[str, str], None]) -> None:
    """`move(temporary, path)`; again if the `gc` of another driver swept the file before that."""
    for tries_left in reversed(range(_SWEPT_TRIES)):
        with _temporary(path, data) as temporary:
            try:
                move(temporary, path)
                break
            except FileNotFoundError:
                if os.path.lexists(temporary) or not tries_left:
                    raise
    _sync_folder(os.path.dirname(path))


def _link(temporary: str, path: str) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _LINK_UNSUPPORTED:
            raise
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            os.replace(temporary, path)
        except FileNotFoundError:  # swept; the name must be free for the next try
            os.unlink(path)
            raise


def list_names(folder: str) -> list[str]:
    """Sorted names of the files directly in `folder`; raises FileNotFoundError if it is missing."""
    with os.scandir(folder or ".") as entries:
        return sorted(entry.name for entry in entries if entry.is_file())


def list_tree(folder: str) -> list[str]:
    """Sorted paths of all files under `folder`, relative to it with `/`; [] if it is missing."""
    folder = folder or "."
    if not os.path.lexists(folder):
        return []
    return sorted(
        os.path.relpath(os.path.join(parent, name), folder).replace(os.sep, "/")
        for parent, _, names in os.walk(folder, onerror=_raise)
        for name in names
    )


@contextmanager
def _temporary(path: str, data: bytes) -> Iterator[str]:
    """A synced file with `data` in the folder of `path`; gone at the end, whatever happens."""
    folder = os.path.dirname(path)
    _make_folder(folder)
    temporary = os.path.join(folder, TEMP_PREFIX + secrets.token_hex(8))
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _make_folder(folder: str) -> None:
    if not folder or os.path.isdir(folder):
        return
    parent = os.path.dirname(folder.rstrip("/"))
    _make_folder(parent)
    try:
        os.mkdir(folder)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise NotADirectoryError(f"{folder} is a file; expected a folder") from None
    _sync_folder(parent)


def _sync_folder(folder: str) -> None:
    handle = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
