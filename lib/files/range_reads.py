"""Whole objects of S3: a small one by one GET, a large one by several at once.

The first GET asks for the first part; its answer says how large the object is and which version,
so that no HEAD is needed. The other parts are asked for of that version alone, each is tried again
by itself, and all are poured into one buffer, which becomes the result without a copy.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from fsspec.asyn import sync

from lib.files.retries import ask
from lib.files.store_errors import ObjectReplacedError, store_code

PART_BYTES = 16 * 2**20
PARTS_AT_ONCE = 8
_CHUNK_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class _Begun:
    """An object whose first part has been read."""

    size: int
    etag: str
    buffer: BytesIO


def read_object(url: str, check_size: Callable[[int], None]) -> bytes:
    """The object at an S3 URL; `check_size` may refuse its size before it is read.

    Raises:
        FileNotFoundError: there is none.
        ObjectReplacedError: it was written anew in the middle.
    """
    begun = ask(url, lambda fs, path: _begin(fs, path, check_size))
    starts = range(PART_BYTES, begun.size, PART_BYTES)
    if starts:
        with begun.buffer.getbuffer() as view:

            def fetch(start: int) -> None:
                with view[start : start + PART_BYTES] as into:
                    ask(url, lambda fs, path: _part(fs, path, start, into, begun))

            pool = ThreadPoolExecutor(min(PARTS_AT_ONCE, len(starts)), thread_name_prefix="parts")
            try:
                list(pool.map(fetch, starts))
            finally:
                pool.shutdown(cancel_futures=True)
    return begun.buffer.getvalue()


def _begin(fs: Any, path: str, check_size: Callable[[int], None]) -> _Begun:
    try:
        answer = _get(fs, path, 0, PART_BYTES)
    except OSError as error:
        if store_code(error) not in ("InvalidRange", "416"):
            raise
        return _Begun(0, "", BytesIO())  # an empty object has no first byte
    body, length = answer["Body"], int(answer["ContentLength"])
    size = _whole_size(answer)
    try:
        check_size(size)
        buffer = BytesIO()
        buffer.seek(max(0, size - 1))
        buffer.write(b"\0" * min(1, size))
        with buffer.getbuffer() as view, view[:length] as into:
            sync(fs.loop, _pour, body, into)
    finally:
        body.close()
    return _Begun(size, answer.get("ETag", ""), buffer)


def _part(fs: Any, path: str, start: int, into: memoryview, begun: _Begun) -> None:
    replaced = "it was written anew while it was read; read it again"
    try:
        answer = _get(fs, path, start, len(into), IfMatch=begun.etag)
    except OSError as error:
        if store_code(error) in ("PreconditionFailed", "412", "InvalidRange", "416"):
            raise ObjectReplacedError(replaced) from None
        raise
    try:
        # Not every server knows If-Match.
        if answer.get("ETag") != begun.etag or _whole_size(answer) != begun.size:
            raise ObjectReplacedError(replaced)
        sync(fs.loop, _pour, answer["Body"], into)
    finally:
        answer["Body"].close()


def _get(fs: Any, path: str, start: int, length: int, **conditions: str) -> dict[str, Any]:
    bucket, key, version = fs.split_path(path)
    if version:
        conditions["VersionId"] = version
    span = f"bytes={start}-{start + length - 1}"
    answer: dict[str, Any] = fs.call_s3(
        "get_object", Bucket=bucket, Key=key, Range=span, **conditions
    )
    return answer


def _whole_size(answer: dict[str, Any]) -> int:
    """Of the object, not of the part: behind the slash of `bytes 0-15/4711`."""
    span = answer.get("ContentRange")
    return int(span.rpartition("/")[2]) if span else int(answer["ContentLength"])


async def _pour(body: Any, into: memoryview) -> None:
    place = 0
    while chunk := await body.read(_CHUNK_BYTES):
        into[place : place + len(chunk)] = chunk
        place += len(chunk)
    if place != len(into):
        raise ConnectionError(f"the answer ended after {place} of {len(into)} bytes")
