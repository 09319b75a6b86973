"""Storage against a real S3 server on loopback, with create-only writes by If-None-Match."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import fsspec
import pytest

from lib.files import storage, store_backends

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
s3_backends = pytest.importorskip("moto.s3.models").s3_backends
DEFAULT_ACCOUNT_ID = pytest.importorskip("moto.core").DEFAULT_ACCOUNT_ID

BUCKET = "s3://deltah-test"
BIG = bytes(range(256)) * (20 * 2**20 // 256)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; the endpoint is given as a user gives it, by fsspec's configuration."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server})
    s3fs.S3FileSystem.clear_instance_cache()
    fs = fsspec.filesystem("s3")
    fs.mkdir(BUCKET)
    yield BUCKET
    fs.rm(BUCKET, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


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


def test_a_listing_shows_what_another_client_wrote_since(bucket: str, server: str) -> None:
    folder = storage.join(bucket, "commit")
    storage.create(storage.join(folder, "a"), b"x")
    assert storage.list_names(folder) == ["a"]
    other = s3fs.S3FileSystem(
        key="testing", secret="x", endpoint_url=server, skip_instance_cache=True
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


def answer(code: str, condition: str | None = None) -> OSError:
    """What s3fs raises for a server's error code that it does not know."""
    error = {"Code": code, "Message": "the server's words"}
    if condition:
        error["Condition"] = condition
    cause = s3fs.core.ClientError({"Error": error}, "PutObject")
    return s3fs.errors.translate_boto_error(cause)


def test_a_server_that_does_not_name_the_condition_still_says_exists(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise answer("PreconditionFailed")

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", refuse)
    with pytest.raises(FileExistsError):
        storage.create(storage.join(bucket, "a"), b"x")


def test_a_conflict_of_two_writers_is_tried_again(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [answer("ConditionalRequestConflict") for _ in range(2)]
    put = s3fs.S3FileSystem._pipe_file  # noqa: SLF001

    async def refuse_twice(*args: object, **kwargs: object) -> object:
        if refusals:
            raise refusals.pop()
        return await put(*args, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_pipe_file", refuse_twice)
    monkeypatch.setattr(storage.time, "sleep", lambda seconds: None)
    url = storage.join(bucket, "a")
    storage.create(url, b"mine")
    assert storage.read_bytes(url) == b"mine"


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


def test_a_server_that_is_not_there_gives_an_os_error_without_secrets(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        fsspec.config.conf,
        "s3",
        {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}},
    )
    monkeypatch.setattr(s3fs.core, "S3_RETRYABLE_ERRORS", ())
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="s3://deltah-test/a") as caught:
        storage.read_bytes(bucket + "/a")
    assert "hush-hush" not in str(caught.value)
    monkeypatch.undo()
