"""A tar writer whose output depends on names and contents alone, not on time, user or machine."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from io import BytesIO


def write_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """The tar of `(name, contents)` in the given order: USTAR, mtime 0, root, mode 0644. Members
    are taken one by one, so that they need not be in memory beside it.

    A name over 100 bytes, or not ASCII, gets a PAX record in front, which is deterministic too.

    Raises:
        ValueError: a name is repeated, empty, absolute, or leads out of the folder.

    """
    tar = BytesIO()
    seen: set[str] = set()
    for name, contents in members:
        _check_name(name)
        if name in seen:
            raise ValueError(f"the tar has two members {name!r}; expected each name once")
        seen.add(name)
        entry = tarfile.TarInfo(name)
        entry.size = len(contents)
        entry.mode = 0o644
        # An int: a float would bring a PAX record to every member.
        entry.mtime = 0
        header = entry.tobuf(tarfile.PAX_FORMAT, encoding="utf-8", errors="strict")
        tar.write(header)
        tar.write(contents)
        tar.write(bytes(-len(contents) % tarfile.BLOCKSIZE))
    end_mark = 2 * tarfile.BLOCKSIZE
    tar.write(bytes(end_mark + -(tar.tell() + end_mark) % tarfile.RECORDSIZE))
    return tar.getvalue()


def _check_name(name: str) -> None:
    unsafe = not name or name.startswith("/") or name.endswith("/") or "\0" in name
    if unsafe or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no member name; expected a relative path without '..'")
