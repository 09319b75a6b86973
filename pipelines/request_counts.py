"""How many requests a run of `edit_dataset` makes of an object store, for its plan and its bill.

The numbers were counted at a real server (`python -m benchmarks.requests`), and
tests/benchmarks/test_requests.py holds them to it. Requests that are tried again come on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib.files.range_reads import PART_BYTES
from lib.files.store_backends import UPLOAD_CHUNK_BYTES

NAMES_A_PAGE = 1000
"""Of one LIST."""
EVENTS_INTERVAL_S = 30.0
"""The driver's log of events is written anew so often."""
REFRESH_INTERVAL_S = 60.0
"""A driver lists so often what other drivers have committed."""
_FULL_LISTINGS = 5
"""At the end of a run: commit/ three times, images/ and directions/, each with a name a shard."""


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


ONCE = Requests(get=7, put=7, head=12, list=44)
"""Of a run from an empty folder to its index, whatever its size, with one page a listing: claim,
inputs, calibration, events at the end, manifest, card, index."""


def shard_requests(*, input_bytes: int, image_bytes: int, failures: bool = False) -> Requests:
    """Of one shard from its input to its line in the index: read it, write images, directions and
    commit, and read the commit again at the end; `failures`: it has a file under errors/ too.
    """
    reads = Requests(get=max(1, math.ceil(input_bytes / PART_BYTES)) + 1)
    writes = upload_requests(image_bytes) + Requests(put=2)
    return reads + writes + (Requests(get=1, put=1) if failures else Requests())


def upload_requests(size: int) -> Requests:
    """Of writing a new object of `size` bytes: in parts, after a look whether it is there, from two
    parts on.
    """
    if size < 2 * UPLOAD_CHUNK_BYTES:
        return Requests(put=1)
    return Requests(put=math.ceil(size / UPLOAD_CHUNK_BYTES) + 2, head=1, list=1)


def run_requests(
    shards: int,
    *,
    input_bytes: int,
    image_bytes: int,
    failing_shards: int = 0,
    driver_s: float = 0.0,
) -> Requests:
    """Of a whole run by one driver that works for `driver_s`; `input_bytes` and `image_bytes` are
    of one shard.
    """
    each = shard_requests(input_bytes=input_bytes, image_bytes=image_bytes)
    pages = max(1, math.ceil(shards / NAMES_A_PAGE))
    return (
        ONCE
        + each.times(shards)
        + Requests(get=1, put=1).times(failing_shards)
        + Requests(list=_FULL_LISTINGS * (pages - 1))
        + Requests(
            put=int(driver_s // EVENTS_INTERVAL_S),
            list=int(driver_s // REFRESH_INTERVAL_S) * math.ceil(pages / 2),
        )
    )
