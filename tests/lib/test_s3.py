"""Storage against a real S3 server on loopback, with create-only writes by If-None-Match."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import fsspec
import pytest

from lib.files import storage, store_backends

if TYPE_CHECKING:
    from benchmarks.faulty_s3 import FaultyS3

s3fs = pytest.importorskip("s3fs")
s3_backends = pytest.importorskip("moto.s3.models").s3_backends
DEFAULT_ACCOUNT_ID = pytest.importorskip("moto.core").DEFAULT_ACCOUNT_ID

BIG = bytes(range(256)) * (20 * 2**20 // 256)


def test_write_list_and_read(bucket: str) -> None:
    out = storage.join(bucket, "out")
    assert storage.list_names(storage.join(out, "commit")) == []
    for name in ("commit/b.parquet", "commit/a.parquet", "images/a.tar", "run.json"):
        storage.create(storage.join(out, name), name.encode())
    assert storage.list_names(storage.join(out, "commit")) == ["a.parquet", "b.parquet"]
    assert storage.list_names(out) == ["run.json"]
    assert storage.list_tree(out) == [
        "commit/a.parquet", "commit/b.parquet", "images/a.tar", "run.json",
    ]  # fmt: skip
    assert storage.read_bytes(storage.join(out, "images/a.tar"), max_bytes=99) == b"images/a.tar"
    assert storage.exists(storage.join(out, "run.json"))
    storage.delete(storage.join(out, "run.json"))
    storage.delete(storage.join(out, "run.json"))
    assert not storage.exists(storage.join(out, "run.json"))


def test_a_page_says_that_it_is_one(bucket: str) -> None:
    for name in ("report/index.html", "report/data/summary.js", "manifest/a.parquet"):
        storage.replace(storage.join(bucket, name), b"text")
    fs = fsspec.filesystem("s3")
    kinds = [
        fs.info(f"{bucket}/{name}")["ContentType"]
        for name in ("report/index.html", "report/data/summary.js", "manifest/a.parquet")
    ]
    assert kinds[:2] == ["text/html; charset=utf-8", "text/javascript; charset=utf-8"]
    assert not kinds[2].startswith("text")


def test_a_listing_shows_what_another_client_wrote_since(bucket: str, s3: FaultyS3) -> None:
    folder = storage.join(bucket, "commit")
    storage.create(storage.join(folder, "a"), b"x")
    assert storage.list_names(folder) == ["a"]
    other = s3fs.S3FileSystem(
        key="testing", secret="x", endpoint_url=s3.url, skip_instance_cache=True
    )
    other.pipe_file(storage.join(folder, "b"), b"y")
    assert storage.list_names(folder) == ["a", "b"]
    other.rm_file(storage.join(folder, "a"))
    assert storage.list_names(folder) == ["b"]
    assert not storage.exists(storage.join(folder, "a"))


def test_a_listing_of_more_than_one_page_is_whole(bucket: str) -> None:
    names = [f"{number:04d}" for number in range(1005)]
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    for name in names:
        backend.put_object("deltah-test", f"many/{name}", b"")
    assert storage.list_names(storage.join(bucket, "many")) == names


def test_a_small_object_is_created_once(bucket: str) -> None:
    url = storage.join(bucket, "commit", "a.parquet")
    storage.create(url, b"first")
    with pytest.raises(FileExistsError, match=r"a\.parquet: there is already an object"):
        storage.create(url, b"second")
    assert storage.read_bytes(url) == b"first"


@pytest.mark.parametrize("chunk", [5 * 2**20, 64 * 2**20], ids=["multipart", "single"])
def test_twenty_megabytes_are_created_once(
    bucket: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_backends, "UPLOAD_CHUNK_BYTES", chunk)
    calls: list[str] = []
    call = s3fs.S3FileSystem._call_s3  # noqa: SLF001, there is no other place to listen

    async def listen(self: object, method: str, *args: object, **kwargs: object) -> object:
        calls.append(method + ("!" if kwargs.get("IfNoneMatch") == "*" else ""))
        return await call(self, method, *args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", listen)
    url = storage.join(bucket, "images", "a.tar")
    storage.create(url, BIG)
    if chunk < len(BIG) // 2:
        assert calls.count("upload_part") == 4
        assert calls[-1] == "complete_multipart_upload!"
    else:
        assert calls == ["put_object!"]
    with pytest.raises(FileExistsError):
        storage.create(url, BIG[::-1])
    assert storage.read_bytes(url) == BIG
    uploads = fsspec.filesystem("s3").call_s3("list_multipart_uploads", Bucket="deltah-test")
    assert not uploads.get("Uploads")


def test_of_many_writers_exactly_one_wins(bucket: str) -> None:
    url = storage.join(bucket, "commit", "raced")

    def attempt(writer: int) -> int | None:
        try:
            storage.create(url, bytes([writer]) * 1000)
        except FileExistsError:
            return None
        return writer

    with ThreadPoolExecutor(8) as pool:
        winners = [who for who in pool.map(attempt, range(16)) if who is not None]
    assert len(winners) == 1
    assert storage.read_bytes(url) == bytes(winners) * 1000


def test_a_server_that_does_not_name_the_condition_still_says_exists(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        error = {"Code": "PreconditionFailed", "Message": "the server's words"}
        cause = s3fs.core.ClientError({"Error": error}, "PutObject")
        raise s3fs.errors.translate_boto_error(cause)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", refuse)
    with pytest.raises(FileExistsError):
        storage.create(storage.join(bucket, "a"), b"x")


def test_info_has_the_etag_and_no_stale_size(bucket: str) -> None:
    url = storage.join(bucket, "a")
    storage.replace(url, b"one")
    first = storage.info(url)
    # The etag of a single PUT is the MD5 of the contents.
    assert first == storage.ObjectInfo(3, "f97c5d29941bfb1b2fdab0874906ab82")
    storage.list_names(bucket)
    storage.replace(url, b"three")
    assert storage.info(url).size == 5
    with pytest.raises(storage.ObjectTooLargeError):
        storage.read_bytes(url, max_bytes=4)


def test_globs_and_missing_objects(bucket: str) -> None:
    for name in ("a-0.tar", "a-1.tar", "b-0.tar", "deep/c.tar"):
        storage.create(storage.join(bucket, "in", name), b"x")
    assert storage.expand([bucket + "/in/{a,b}-[01].tar", bucket + "/in/a-*.tar"]) == [
        f"{bucket}/in/{name}" for name in ("a-0.tar", "a-1.tar", "b-0.tar")
    ]
    with pytest.raises(FileNotFoundError, match=r"z-\*"):
        storage.expand([bucket + "/in/z-*.tar"])
    for missing in (bucket + "/none", "s3://no-such-bucket/none"):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            storage.read_bytes(missing)
    assert storage.list_names("s3://no-such-bucket/x") == []
