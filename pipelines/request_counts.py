"""How many requests a run makes of an object store, for its plan and its bill.

The numbers were counted at a real server (`python -m benchmarks.requests`);
tests/benchmarks/test_requests.py and tests/pipelines/test_request_counts.py hold them to it.
Requests that are tried again come on top.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lib.files.range_reads import PART_BYTES
from lib.files.store_backends import UPLOAD_CHUNK_BYTES
from lib.ledger.driver_record import INTERVAL_S
from pipelines.memory_budget import LOOKED_AT

NAMES_A_PAGE = 1000
"""Of one LIST."""
WRITES_EACH_INTERVAL = 2
"""A driver's record, and its log of events, are written anew every `INTERVAL_S`."""
REFRESH_INTERVAL_S = 60.0
"""A driver lists so often what other drivers have committed."""
_COMMIT_LISTINGS = 3
"""At the end of a run; every other folder with a file a shard is listed once."""
_READ_AT_THE_END = ("errors", "statistics")
"""Folders whose files finalize reads beside every commit."""


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests by kind."""

    get: int = 0
    put: int = 0
    """POST too, which begins and completes an upload in parts."""
    head: int = 0
    list: int = 0

    def __add__(self, other: Requests) -> Requests:
        return Requests(
            self.get + other.get,
            self.put + other.put,
            self.head + other.head,
            self.list + other.list,
        )

    def times(self, count: int) -> Requests:
        """So many of each."""
        return Requests(self.get * count, self.put * count, self.head * count, self.list * count)


ONCE = Requests(get=8, put=12, head=12, list=49)
"""Of a run from an empty folder to its index, whatever its size, with one page a listing: claim,
inputs, the beginning of one shard for the memory that is stated, calibration, the driver's record
and events, manifest, card, index."""


@dataclass(frozen=True, slots=True)
class ShardTraffic:
    """What a worker reads and writes of a mean shard."""

    input_bytes: float
    files: Mapping[str, float]
    """Folder -> bytes of the files it leaves, without the commit; errors/ is in it where samples
    fail.
    """
    latents_read: float = 0.0
    """Bytes of a latents file of another run; 0 where none is read."""


def shard_requests(shard: ShardTraffic) -> Requests:
    """Of one shard from its input to its line in the index: read it, write its files and the
    commit, and read the commit again at the end, with errors and statistics.
    """
    reads = [shard.input_bytes, *(shard.files.get(f, 0.0) for f in _READ_AT_THE_END)]
    gets = 1 + sum(math.ceil(size / PART_BYTES) for size in reads)
    if shard.latents_read:  # after the footer of the commit that names them
        gets += 1 + math.ceil(shard.latents_read / PART_BYTES)
    total = Requests(get=gets, put=1)
    for size in shard.files.values():
        total += upload_requests(size)
    return total


def upload_requests(size: float) -> Requests:
    """Of writing a new object of `size` bytes: in parts, after a look whether it is there, from two
    parts on.
    """
    if size < 2 * UPLOAD_CHUNK_BYTES:
        return Requests(put=1)
    return Requests(put=math.ceil(size / UPLOAD_CHUNK_BYTES) + 2, head=1, list=1)


def run_requests(shards: int, shard: ShardTraffic, *, driver_s: float = 0.0) -> Requests:
    """Of a whole run over so many such shards, by one driver that works for `driver_s`."""
    pages = max(1, math.ceil(shards / NAMES_A_PAGE))
    return (
        ONCE
        + Requests(head=min(shards, LOOKED_AT))  # sizes, for the memory that is stated
        + shard_requests(shard).times(shards)
        + Requests(list=(_COMMIT_LISTINGS + len(shard.files)) * (pages - 1))
        + Requests(
            put=WRITES_EACH_INTERVAL * int(driver_s // INTERVAL_S),
            list=int(driver_s // REFRESH_INTERVAL_S) * math.ceil(pages / 2),
        )
    )
