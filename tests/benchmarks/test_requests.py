"""What a plan says of requests is what a real server counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

import cluster.driver
import cluster.watching.monitor
from benchmarks.faulty_s3 import FaultyS3
from benchmarks.report import make_run
from benchmarks.requests import BUCKET, Counts, counted, counted_s3, measured
from cluster.settlement import settled
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from pipelines import request_counts
from pipelines.request_counts import (
    Requests,
    ShardTraffic,
    run_requests,
    shard_requests,
    upload_requests,
)

pytestmark = pytest.mark.timeout(300)
MIB = 2**20
SMALL = ShardTraffic(50_000, {"images": 50_000, "directions": 5_000})


@pytest.fixture(scope="module")
def counting() -> Iterator[FaultyS3]:
    pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with counted_s3() as s3:
        yield s3


def by_kind(counts: Counts) -> Requests:
    found: Counter[str] = Counter()
    for (operation, _), number in counts.items():
        kind = "put" if "Upload" in operation else operation.partition("Object")[0].lower()
        found[kind] += number
    del found["delete"]  # costs nothing
    return Requests(**found)


def test_a_run_makes_the_requests_that_were_reckoned(
    counting: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what comes by the clock."""
    monkeypatch.setattr(cluster.watching.monitor, "INTERVAL_S", 1e9)
    monkeypatch.setattr(cluster.driver, "_REFRESH_S", 1e9)
    for shards, found in zip((1, 2), measured(counting, (1, 2)), strict=True):
        made = by_kind(found["run"])
        assert made == run_requests(shards, SMALL)


def test_what_comes_by_the_clock_is_reckoned_at_the_drivers_intervals() -> None:
    assert cluster.driver._REFRESH_S == request_counts.REFRESH_INTERVAL_S  # noqa: SLF001
    hour, none = run_requests(1, SMALL, driver_s=3600.0), run_requests(1, SMALL)
    assert (hour.put - none.put, hour.list - none.list) == (240, 60)


def test_large_objects_are_reckoned_part_by_part(counting: FaultyS3) -> None:
    url = f"s3://{BUCKET}/large/in"
    size = 33 * MIB
    written = by_kind(counted(counting, lambda: storage.create(url, bytes(size))))
    assert written == upload_requests(size) == Requests(put=5, head=1, list=1)
    read = by_kind(counted(counting, lambda: storage.read_bytes(url)))
    assert read == Requests(get=3)
    shard = shard_requests(ShardTraffic(size, {"images": size, "directions": 1}))
    assert shard == Requests(get=4, put=7, head=1, list=1)


def test_the_end_of_a_run_lists_as_many_pages_as_reckoned(
    counting: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, page = 45, 20
    folder = RunFolder(f"s3://{BUCKET}/paged/run")
    make_run(folder, edits=shards * 20, shards=shards, side=8)
    names = [f"{number:05d}" for number in range(shards)]

    def lists() -> int:
        for name in names:
            storage.replace(folder.url("directions", f"{name}-{0:016x}.parquet"), b"")
        storage.delete(folder.index_url)
        return by_kind(counted(counting, lambda: settled(folder, names, None))).list

    on_one_page = lists()
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", str(page))
    monkeypatch.setattr(request_counts, "NAMES_A_PAGE", page)
    reckoned = run_requests(shards, SMALL).list - request_counts.ONCE.list
    assert lists() - on_one_page == reckoned == 2 * 5
