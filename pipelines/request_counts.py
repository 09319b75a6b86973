"""How many requests a run sends to an object store, counted as the code sends them to S3.

Counted is what grows with the shards, the images or the time; what a run and a worker send once
are some tens of requests more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lib.files.store_backends import UPLOAD_CHUNK_BYTES

RANGE_BYTES = 50 * 2**20
"""s3fs reads an object that is larger in parallel ranges of this size."""
_LISTED_AT_ONCE = 1000
_COMMIT_LISTINGS = 4
"""Before the first shard, after the last, and twice by finalize."""
_FINALIZED = ("errors", "statistics")
"""Files that finalize reads beside every commit."""
_REFRESH_S, _EVENTS_S = 60.0, 30.0
"""Seconds between two listings of commit/, and between two writes of the events."""


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """By what S3 bills apart."""

    get: int = 0
    head: int = 0
    put: int = 0
    """Parts of large objects, and their begin and end, among them."""
    list: int = 0


@dataclass(frozen=True, slots=True)
class ShardTraffic:
    """What a worker reads and writes of a mean shard."""

    input_bytes: float
    files: Mapping[str, float]
    """Folder -> bytes of the files it leaves, without the commit; errors/ is in it where samples
    fail.
    """
    latents_read: bool = False
    """Whether it reads a latents file of another run, counted as one range."""


def request_counts(shards: int, shard: ShardTraffic, wall_s: float = 0.0) -> RequestCounts:
    """Of a run of so many shards, input and output in a store, that one driver brings to its end
    in `wall_s` seconds; those in which it waits are not counted at 0.

    s3fs looks at an object before it reads it, by one GET or by ranges, and the size of an input
    shard is looked at once more. Every file is one PUT, or parts; the commit is small.
    Finalize reads every commit, and the errors and statistics beside it.
    """
    reads = {"commit": 1.0, **{f: shard.files[f] for f in _FINALIZED if f in shard.files}}
    get = _gets(shard.input_bytes) + sum(_gets(size) for size in reads.values())
    head = 2 + len(reads)
    if shard.latents_read:  # the footer of the commit, by its last bytes; then the file
        get += 2
        head += 1
    put = 1 + sum(_puts(size) for size in shard.files.values())
    refreshes = math.floor(wall_s / _REFRESH_S)
    return RequestCounts(
        get=shards * get,
        head=shards * head,
        put=shards * put + math.floor(wall_s / _EVENTS_S),
        list=_COMMIT_LISTINGS * _pages(shards)
        + refreshes * _pages(shards // 2)
        + len(shard.files) * _pages(shards),
    )


def _gets(size: float) -> int:
    return max(1, math.ceil(size / RANGE_BYTES))


def _puts(size: float) -> int:
    if size < 2 * UPLOAD_CHUNK_BYTES:
        return 1
    return 2 + math.ceil(size / UPLOAD_CHUNK_BYTES)


def _pages(names: int) -> int:
    return max(1, math.ceil(names / _LISTED_AT_ONCE))
