"""What S3 does on a bad day: refusals, silence and cut connections, injected between the client and
a real server.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from benchmarks.faulty_s3 import Fault, FaultyS3, Request, random_faults, spoil
from lib.files import range_reads, retries, storage, store_backends
from lib.ledger.commit import commit
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record
from lib.ledger.verification import verify

pytestmark = pytest.mark.timeout(120)
MIB = 2**20
ROOT = Path(__file__).parents[2]
OPERATIONS: dict[str, tuple[str, Callable[[str], object]]] = {
    "read": ("GetObject", lambda url: storage.read_bytes(url)),
    "tail": ("GetObject", lambda url: storage.read_tail(url, 4)),
    "info": ("HeadObject", lambda url: storage.info(url).size),
    "exists": ("HeadObject", storage.exists),
    "list": ("ListObjects", lambda url: storage.list_names(url.rpartition("/")[0])),
    "tree": ("ListObjects", lambda url: storage.list_tree(url.rpartition("/")[0])),
    "replace": ("PutObject", lambda url: storage.replace(url, b"contents")),
    "delete": ("DeleteObject", storage.delete),
}


@pytest.fixture
def hasty(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket whose client sends each request twice at most, so that both layers have work."""
    settings = {"read_timeout": 1.0, "retries": {"total_max_attempts": 2}}
    monkeypatch.setitem(fsspec.config.conf["s3"], "config_kwargs", settings)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.05)
    return bucket


@pytest.fixture
def once(bucket: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket whose client sends each request once, so that all repeating is ours, and soon."""
    settings = {"read_timeout": 0.5, "retries": {"total_max_attempts": 1}}
    monkeypatch.setitem(fsspec.config.conf["s3"], "config_kwargs", settings)
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)
    return bucket


@pytest.mark.parametrize("layer", ["botocore", "ours"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_outlives_a_refusal_a_cut_connection_and_silence(
    operation: str, layer: str, request: pytest.FixtureRequest, s3: FaultyS3
) -> None:
    bucket: str = request.getfixturevalue("bucket" if layer == "botocore" else "once")
    name, work = OPERATIONS[operation]
    url = storage.join(bucket, "folder", "object")
    storage.create(url, b"contents")
    expected = work(url)
    kinds = [Fault.ERROR_500, Fault.SLOW_DOWN, Fault.CUT_BEFORE, Fault.CUT_AFTER, Fault.STALL]
    if name == "GetObject":
        kinds += [Fault.CUT_BODY, Fault.STALL_BODY]
    for fault in kinds if layer == "ours" else [Fault.CUT_AFTER]:
        s3.plan = spoil(name, fault)
        start = len(s3.seen)
        assert work(url) == expected, fault
        assert s3.seen[-1][0].operation == name
        assert [each for _, each in s3.seen[start:] if each is not None] == [fault]


def test_two_writers_in_the_same_moment_are_let_in_one_after_the_other(
    bucket: str, s3: FaultyS3
) -> None:
    url = storage.join(bucket, "a")
    s3.plan = spoil("PutObject", *[Fault.CONFLICT] * 3)
    storage.create(url, b"mine")
    assert storage.read_bytes(url) == b"mine"


def test_after_a_lost_answer_the_own_object_is_reported_as_existing(
    bucket: str, s3: FaultyS3
) -> None:
    url = storage.join(bucket, "a")
    s3.plan = spoil("PutObject", Fault.CUT_AFTER)
    with pytest.raises(FileExistsError):
        storage.create(url, b"mine")
    assert storage.read_bytes(url) == b"mine"


def test_hundreds_of_writes_and_reads_among_thirty_percent_faults_lose_and_tear_nothing(
    hasty: str, s3: FaultyS3
) -> None:
    """Of three writers of one name exactly one finds that it won, and its bytes stand."""
    names, writers = 60, 3
    start = len(s3.seen)
    s3.plan = random_faults(seed=4, rate=0.3)

    def content(name: int, writer: int) -> bytes:
        return random.Random(1000 * name + writer).randbytes(5000)

    def write(job: tuple[int, int]) -> bool:
        name, writer = job
        url = storage.join(hasty, "raced", f"{name:03d}")
        try:
            storage.create(url, content(name, writer))
        except FileExistsError:
            return storage.read_bytes(url) == content(name, writer)
        return True

    jobs = [(name, writer) for name in range(names) for writer in range(writers)]
    with ThreadPoolExecutor(16) as pool:
        won = dict(zip(jobs, pool.map(write, jobs), strict=True))
    assert storage.list_names(storage.join(hasty, "raced")) == [f"{n:03d}" for n in range(names)]
    s3.plan = None
    for name in range(names):
        (winner,) = (writer for writer in range(writers) if won[name, writer])
        url = storage.join(hasty, "raced", f"{name:03d}")
        assert storage.read_bytes(url) == content(name, winner)
    spoilt = sum(fault is not None for _, fault in s3.seen[start:])
    assert spoilt > 50


def test_of_two_racing_writers_on_a_bad_store_exactly_one_commits_each_shard(
    hasty: str, s3: FaultyS3, results: ModuleType
) -> None:
    shards = [f"{number:05d}" for number in range(8)]
    folder = RunFolder(storage.join(hasty, "run"))
    s3.plan = random_faults(seed=7, rate=0.25)
    record = run_record({"weights": "ab12"}, {})
    folder.open_run(record)
    folder.add_inputs({shard: f"{shard}.tar" for shard in shards})

    def write(job: tuple[str, bytes]) -> str:
        shard, pixels = job
        return commit(
            folder, results.shard_result(shard, pixels=pixels), str(record["fingerprint"])
        )

    jobs = [(shard, pixels) for shard in shards for pixels in (b"one", b"other")]
    with ThreadPoolExecutor(8) as pool:
        outcomes = dict(zip(jobs, pool.map(write, jobs), strict=True))
    for shard in shards:
        pair = sorted(outcomes[shard, pixels] for pixels in (b"one", b"other"))
        assert pair == ["committed", "lost_race"]
    s3.plan = None
    finalize(folder)
    found = verify(folder, deep=True)
    assert (found.problems, found.notes) == ((), ())
    assert (found.committed, found.samples_ok) == (8, 32)
    assert s3.faults()[Fault.CUT_AFTER] > 5, "answers of writes were lost"


# -- what is not tried again ---------------------------------------------------------------------


def test_what_is_forbidden_or_missing_is_asked_for_once_and_said_with_advice(
    bucket: str, s3: FaultyS3
) -> None:
    url = storage.join(bucket, "a")
    storage.create(url, b"x")
    s3.plan = lambda request: Fault.FORBIDDEN
    for operation, (name, work) in OPERATIONS.items():
        start = len(s3.seen)
        with pytest.raises(PermissionError, match="check that these credentials may"):
            work(url)
        assert s3.counts(start) == {name: 1}, operation
    s3.plan = None
    start = len(s3.seen)
    with pytest.raises(FileNotFoundError, match="no such bucket; check its name"):
        storage.read_bytes("s3://no-such-bucket/a")
    with pytest.raises(FileNotFoundError, match="no such bucket; check its name"):
        storage.create("s3://no-such-bucket/a", b"x")
    with pytest.raises(FileNotFoundError, match="deltah-test/none does not exist"):
        storage.read_bytes(storage.join(bucket, "none"))
    assert s3.counts(start) == {"GetObject": 2, "PutObject": 1}


def test_without_credentials_and_with_an_unknown_host_there_is_advice_at_once(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = storage.join(bucket, "a")
    with monkeypatch.context() as changed:
        changed.setitem(fsspec.config.conf["s3"], "endpoint_url", "http://nowhere.invalid:1")
        with pytest.raises(OSError, match="check the name of the host"):
            storage.read_bytes(url)
    with monkeypatch.context() as changed:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            changed.delenv(name)
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
            changed.setenv(name, "/nonexistent")
        changed.setenv("AWS_EC2_METADATA_DISABLED", "true")
        changed.setitem(fsspec.config.conf["s3"], "endpoint_url", "http://127.0.0.1:9")
        with pytest.raises(PermissionError, match="check the credentials"):
            storage.read_bytes(url)


def test_a_store_that_stays_down_is_given_up_with_a_sentence_that_says_what_was_tried(
    once: str, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retries.VARIABLE, "0.5")
    s3.plan = lambda request: Fault.SLOW_DOWN
    with pytest.raises(
        storage.StoreUnavailableError,
        match=r"^s3://deltah-test/a: the store failed \d+ times in \d s, last with: .*spoilt.*;"
        r" check that it is up",
    ):
        storage.read_bytes(storage.join(once, "a"))
    monkeypatch.delenv(retries.VARIABLE)
    monkeypatch.setattr(retries, "LONGEST_WAIT_S", 0.01)
    start = len(s3.seen)
    with pytest.raises(storage.StoreUnavailableError, match=f"failed {retries.MOST_TRIES} times"):
        storage.replace(storage.join(once, "a"), b"x")
    assert len(s3.seen) - start == retries.MOST_TRIES


def test_a_patience_that_is_no_number_is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retries.VARIABLE, "for ever")
    with pytest.raises(ValueError, match="expected a number of seconds, such as 300"):
        storage.exists(storage.join(bucket, "a"))


# -- large objects -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "gets"), [(0, 1), (1, 1), (1000, 1), (1001, 2), (3000, 3), (12_345, 13)]
)
def test_an_object_is_read_by_one_get_a_part_and_nothing_else(
    bucket: str, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, size: int, gets: int
) -> None:
    monkeypatch.setattr(range_reads, "PART_BYTES", 1000)
    url = storage.join(bucket, "a")
    data = random.Random(size).randbytes(size)
    storage.create(url, data)
    start = len(s3.seen)
    assert storage.read_bytes(url) == data
    assert storage.read_bytes(url, max_bytes=size) == data
    assert s3.counts(start) == {"GetObject": 2 * gets}
    if size:
        with pytest.raises(storage.ObjectTooLargeError, match=f"has {size} bytes or more"):
            storage.read_bytes(url, max_bytes=size - 1)
        assert s3.counts(start) == {"GetObject": 2 * gets + 1}


def test_each_part_is_tried_again_by_itself(
    once: str, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_reads, "PART_BYTES", 100_000)
    # Long enough that no answer which is only slow, on a busy machine, counts as silence.
    settings = {"read_timeout": 4.0, "retries": {"total_max_attempts": 1}}
    monkeypatch.setitem(fsspec.config.conf["s3"], "config_kwargs", settings)
    url = storage.join(once, "a")
    data = random.Random(1).randbytes(950_000)
    storage.create(url, data)
    for fault in (Fault.CUT_BODY, Fault.STALL_BODY, Fault.SLOW_DOWN):
        start = len(s3.seen)
        s3.plan = spoil("GetObject", *[fault] * 4)
        assert storage.read_bytes(url) == data
        assert s3.counts(start) == {"GetObject": 10 + 4}


def test_an_object_replaced_while_it_is_read_is_an_error_and_no_mixture(
    bucket: str, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_reads, "PART_BYTES", 1000)
    monkeypatch.setattr(range_reads, "PARTS_AT_ONCE", 1)
    moto: Any = pytest.importorskip("moto.s3.models").s3_backends["123456789012"]["aws"]
    url = storage.join(bucket, "a")
    storage.create(url, b"1" * 5000)

    def overtake(request: Request) -> None:
        if request.operation == "GetObject":
            gets.append(request)
            if len(gets) == 3:
                moto.put_object("deltah-test", "a", b"2" * 5000)

    gets: list[Request] = []
    s3.plan = overtake
    with pytest.raises(storage.ObjectReplacedError, match="written anew while it was read"):
        storage.read_bytes(url)
    assert storage.read_bytes(url) == b"2" * 5000


READ_AND_MEASURE = """
import json, sys, tracemalloc
from lib.files import range_reads, storage
storage.read_bytes(sys.argv[1], max_bytes=10)
range_reads.PART_BYTES = 2 * 2**20
tracemalloc.start()
data = storage.read_bytes(sys.argv[2])
print(json.dumps([len(data), tracemalloc.get_traced_memory()[1]]))
"""


def test_a_large_object_is_held_in_memory_once(bucket: str, s3: FaultyS3) -> None:
    storage.create(storage.join(bucket, "small"), b"x")
    url = storage.join(bucket, "large")
    size = 32 * MIB
    storage.create(url, bytes(size))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "FSSPEC_S3_ENDPOINT_URL": s3.url}
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_MEASURE, storage.join(bucket, "small"), url],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    length, peak = json.loads(done.stdout)
    assert length == size
    assert peak < 1.25 * size


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Sent in four parts."""
    monkeypatch.setattr(store_backends, "UPLOAD_CHUNK_BYTES", 5 * MIB)
    return random.Random(3).randbytes(20 * MIB)


def unfinished_uploads() -> list[Any]:
    found = fsspec.filesystem("s3").call_s3("list_multipart_uploads", Bucket="deltah-test")
    return list(found.get("Uploads", []))


def test_a_large_upload_among_faults_arrives_whole(bucket: str, s3: FaultyS3, large: bytes) -> None:
    url = storage.join(bucket, "images", "a.tar")
    for fault in (Fault.ERROR_500, Fault.CUT_AFTER):
        s3.plan = spoil("UploadPart", *[fault] * 3)
        storage.replace(url, large)
        assert storage.read_bytes(url) == large
    assert not unfinished_uploads()


def test_an_upload_that_fails_to_the_end_is_aborted(
    once: str, s3: FaultyS3, large: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(retries.VARIABLE, "0.3")
    s3.plan = lambda request: Fault.ERROR_500 if request.operation == "UploadPart" else None
    url = storage.join(once, "images", "a.tar")
    with pytest.raises(storage.StoreUnavailableError):
        storage.create(url, large)
    assert s3.counts()["AbortMultipartUpload"] > 0
    assert not unfinished_uploads()
    assert not storage.exists(url)


@pytest.mark.parametrize("forgets", [False, True], ids=["idempotent", "forgets"])
def test_when_the_answer_to_the_completion_is_lost_no_part_is_sent_twice(
    bucket: str, s3: FaultyS3, large: bytes, forgets: bool
) -> None:
    """A server that has forgotten the upload must not be taken for one without the object."""
    url = storage.join(bucket, "images", "a.tar")
    start = len(s3.seen)
    faults = [Fault.CUT_AFTER, Fault.NO_SUCH_UPLOAD][: 1 + forgets]
    s3.plan = spoil("CompleteMultipartUpload", *faults)
    with pytest.raises(FileExistsError) if forgets else nullcontext():
        storage.create(url, large)
    assert s3.counts(start)["UploadPart"] == 4
    assert storage.read_bytes(url) == large
    assert not unfinished_uploads()


def test_a_large_object_that_exists_is_not_sent(bucket: str, s3: FaultyS3, large: bytes) -> None:
    url = storage.join(bucket, "images", "a.tar")
    storage.create(url, large)
    start = len(s3.seen)
    with pytest.raises(FileExistsError):
        storage.create(url, large)
    assert s3.counts(start) == {"HeadObject": 1}


def test_a_server_that_takes_nothing_any_more_does_not_hold_a_write_for_ever(
    bucket: str, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_backends, "UPLOAD_CHUNK_BYTES", 64 * MIB)
    s3.plan = spoil("PutObject", Fault.DEAF)
    url = storage.join(bucket, "a")
    storage.replace(url, bytes(20 * MIB))
    assert storage.info(url).size == 20 * MIB
