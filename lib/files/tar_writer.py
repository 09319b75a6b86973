"""A tar writer whose output depends on names and contents alone, not on time, user or machine."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable


def write_tar(members: Iterable[tuple[str, bytes]]) -> bytes:
    """The tar of `(name, contents)` in the given order: USTAR, mtime 0, root, mode 0644.

    A name over 100 bytes, or not ASCII, gets a PAX record in front, which is deterministic too.

    Raises:
        ValueError: a name is repeated, empty, absolute, or leads out of the folder.

    """
    parts: list[bytes] = []
    size = 0
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
        parts += (header, contents, bytes(-len(contents) % tarfile.BLOCKSIZE))
        size += len(header) + len(contents) + len(parts[-1])
    end_mark = 2 * tarfile.BLOCKSIZE
    parts.append(bytes(end_mark + -(size + end_mark) % tarfile.RECORDSIZE))
    return b"".join(parts)


def _check_name(name: str) -> None:
    unsafe = not name or name.startswith("/") or name.endswith("/") or "\0" in name
    if unsafe or ".." in name.split("/"):
        raise ValueError(f"{name!r} is no member name; expected a relative path without '..'")
