"""A tar reader that is never silently short.

Python's tarfile, and webdataset on it, end without a word at a cut between members, inside a
header, or at a header that is zeroed or overwritten. Here the end mark must follow the last member.
"""

from __future__ import annotations

import tarfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

_BLOCK = 512
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_CHUNK = 2**18
_OTHER_FORMATS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK": "zip"}
# What tarfile raises on bytes that are no tar: it parses numbers, dates and pax records as it goes.
_PARSE_ERRORS = (
    tarfile.TarError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    OSError,
    EOFError,
)

Kind = Literal["file", "directory", "link", "device", "other"]


class TarTooLargeError(ValueError):
    """The tar, or what it unpacks to, is larger than its reader allows."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a tar."""

    name: str
    """As stored, valid Unicode (undecodable bytes are written as `\\xNN`)."""
    data: bytes
    """The contents of a file; empty for every other kind, and links are never followed."""
    kind: Kind


@dataclass(frozen=True, slots=True)
class TarContents:
    """The members that can be read whole, and what is wrong behind them."""

    members: tuple[Member, ...]
    damage: str | None
    """Where and how the tar is broken, in words; None when it is whole to its end mark."""
    broken_name: str | None
    """Name of the member in whose data the break lies, None where it lies elsewhere."""


def read_members(data: bytes, max_bytes: int) -> TarContents:
    """Read a plain or gzipped tar that is held in memory.

    Raises:
        TarTooLargeError: the tar has more than `max_bytes` bytes, unpacked where it is compressed.

    """
    unpacked, damage = _unpack(data, max_bytes)
    if not unpacked:
        damage = damage or "the file is empty (0 bytes)"
        return TarContents((), damage, None)
    try:
        archive = tarfile.open(  # noqa: SIM115, it holds no file handle
            fileobj=BytesIO(unpacked), mode="r:", encoding="utf-8", errors="surrogateescape"
        )
    except _PARSE_ERRORS as error:
        return TarContents((), damage or _not_a_tar(unpacked, error), None)

    members: list[Member] = []
    budget = max_bytes
    end = 0
    while True:
        try:
            entry = archive.next()
        except _PARSE_ERRORS as error:
            found = f"no readable header at byte {end} ({error})"
            return TarContents(tuple(members), damage or found, None)
        if entry is None:
            return TarContents(tuple(members), damage or _end_damage(unpacked, end), None)
        name = entry.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if archive.offset <= end or entry.size < 0:
            found = f"the header at byte {end} ({name}) states an impossible size"
            return TarContents(tuple(members), damage or found, None)
        budget -= entry.size if entry.isreg() else 0
        if budget < 0 and entry.issparse():
            raise TarTooLargeError(
                f"the sparse file {name} makes the tar unpack to more than {max_bytes} bytes"
            )
        end = archive.offset
        contents = _contents(archive, entry, unpacked)
        if contents is None:
            found = (
                f"cut at byte {len(unpacked)}, inside the data of {name}, "
                f"which starts at byte {entry.offset_data} and should end at byte {end}"
            )
            return TarContents(tuple(members), damage or found, name)
        members.append(Member(name, contents, _kind(entry)))
        if end > len(unpacked):
            found = f"cut at byte {len(unpacked)}, behind the data of {name}"
            return TarContents(tuple(members), damage or found, None)


def _unpack(data: bytes, max_bytes: int) -> tuple[bytes, str | None]:
    """The tar itself, and the damage of its compression."""
    if len(data) > max_bytes:
        raise TarTooLargeError(f"the tar has {len(data)} bytes; at most {max_bytes} are allowed")
    if not data.startswith(_GZIP_MAGIC):
        return data, None
    parts: list[bytes] = []
    checked = 0
    size = place = 0
    stream = zlib.decompressobj(wbits=31)
    while place < len(data):
        chunk = data[place : place + _GZIP_CHUNK]
        try:
            parts.append(stream.decompress(chunk, max_bytes - size + 1))
        except zlib.error as error:
            # Nothing since the last good checksum can be trusted.
            found = f"the gzip data is broken near byte {place} of the file ({error})"
            return b"".join(parts[:checked]), found
        size += len(parts[-1])
        if size > max_bytes:
            raise TarTooLargeError(f"the tar unpacks to more than {max_bytes} bytes")
        place += len(chunk) - len(stream.unused_data)
        if stream.eof:
            checked = len(parts)
            stream = zlib.decompressobj(wbits=31)
            if not any(data[place : place + _GZIP_CHUNK]) and not any(data[place:]):
                return b"".join(parts), None
    return b"".join(parts), f"the gzip data is cut at byte {len(data)} of the file"


def _not_a_tar(data: bytes, error: BaseException) -> str:
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            return f"this looks like {name}, not tar; expected a plain or gzipped tar"
    return f"this is no tar: no header at byte 0 ({error})"


def _end_damage(data: bytes, end: int) -> str | None:
    """What is wrong with the bytes from `end`, where the last member is over."""
    tail = data[end:]
    if not tail:
        return f"cut between members: the tar stops at byte {end} without its end mark"
    if tail.count(0) == len(tail):
        if len(tail) >= 2 * _BLOCK:
            return None
        return f"cut inside the end mark: {len(tail)} zero bytes at byte {end}, 1024 are needed"
    if any(tail[:_BLOCK]):
        if len(tail) < _BLOCK:
            return f"cut inside the header at byte {end}"
        return f"no valid header at byte {end}: it was overwritten"
    place = end + len(tail) - len(tail.lstrip(b"\0"))
    return (
        f"zeros at byte {end} are followed by data at byte {place}: "
        "a header was zeroed, or tars were joined end to end"
    )


def _contents(archive: tarfile.TarFile, entry: tarfile.TarInfo, data: bytes) -> bytes | None:
    """The data of a member, None if it is cut."""
    if not entry.isreg():
        return b""
    if not entry.issparse():
        stop = entry.offset_data + entry.size
        return data[entry.offset_data : stop] if stop <= len(data) else None
    try:
        file = archive.extractfile(entry)
        contents = file.read() if file is not None else b""
    except _PARSE_ERRORS:
        return None
    return contents if len(contents) == entry.size else None


def _kind(entry: tarfile.TarInfo) -> Kind:
    if entry.isdir():
        return "directory"
    if entry.issym() or entry.islnk():
        return "link"
    if entry.isdev():
        return "device"
    return "file" if entry.type in tarfile.SUPPORTED_TYPES else "other"
