"""Storage on the local disk and in memory; the object store is in test_s3.py."""

from __future__ import annotations

import errno
import http.server
import os
import resource
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from lib.files import local_disk, storage


@pytest.fixture(params=["path", "file", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder, once as a plain path and once in each scheme that needs no server."""
    if request.param == "memory":
        yield f"memory://{tmp_path.name}"
        memory = fsspec.filesystem("memory")
        if memory.exists(tmp_path.name):
            memory.rm(tmp_path.name, recursive=True)
    else:
        yield ("file://" if request.param == "file" else "") + str(tmp_path)


def test_an_object_is_created_once_and_then_left_as_it_was(folder: str) -> None:
    url = storage.join(folder, "deep", "er", "a.bin")
    storage.create(url, b"first")
    with pytest.raises(FileExistsError):
        storage.create(url, b"second")
    assert storage.read_bytes(url) == b"first"
    assert storage.list_tree(folder) == ["deep/er/a.bin"]


def test_an_empty_object_is_an_object(folder: str) -> None:
    url = storage.join(folder, "empty")
    storage.create(url, b"")
    assert storage.read_bytes(url) == b""
    assert storage.info(url).size == 0
    assert storage.list_names(folder) == ["empty"]


def test_replace_writes_over_and_delete_twice_is_fine(folder: str) -> None:
    url = storage.join(folder, "a.json")
    storage.replace(url, b"1")
    storage.replace(url, b"22")
    assert storage.read_bytes(url) == b"22"
    storage.delete(url)
    storage.delete(url)
    assert not storage.exists(url)


def test_a_missing_object_is_file_not_found(folder: str) -> None:
    url = storage.join(folder, "none.tar")
    for look in (storage.read_bytes, storage.info):
        with pytest.raises(FileNotFoundError, match=r"none\.tar"):
            look(url)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(url, max_bytes=10)


def test_an_object_over_the_limit_is_refused_in_words(folder: str) -> None:
    url = storage.join(folder, "a.tar")
    storage.create(url, b"x" * 100)
    assert storage.read_bytes(url, max_bytes=100) == b"x" * 100
    with pytest.raises(storage.ObjectTooLargeError, match="100 bytes or more; at most 99"):
        storage.read_bytes(url, max_bytes=99)


def test_info_tells_versions_apart(folder: str) -> None:
    url = storage.join(folder, "a.tar")
    storage.create(url, b"one")
    first = storage.info(url)
    assert first == storage.info(url)
    storage.replace(url, b"three")
    assert (first.size, storage.info(url).size) == (3, 5)
    assert storage.info(url).etag != first.etag
    with pytest.raises(IsADirectoryError):
        storage.info(folder)


def test_listings_name_files_only_sorted_and_fresh(folder: str) -> None:
    assert storage.list_names(folder) == []
    for name in ("b", "a", "c/d", "c/e/f"):
        storage.create(storage.join(folder, name), b"x")
    assert storage.list_names(folder) == ["a", "b"]
    assert storage.list_tree(folder) == ["a", "b", "c/d", "c/e/f"]
    storage.create(storage.join(folder, "0"), b"x")
    assert storage.list_names(folder) == ["0", "a", "b"]
    missing = storage.join(folder, "missing")
    assert (storage.list_names(missing), storage.list_tree(missing)) == ([], [])


def test_join_and_basename() -> None:
    assert storage.join("s3://bucket", "a", "b.tar") == "s3://bucket/a/b.tar"
    assert storage.join("s3://bucket/x/", "b") == "s3://bucket/x/b"
    assert storage.join("/", "b") == "/b"
    assert storage.join("out") == "out"
    assert storage.basename("s3://bucket/x/a.tar?versionId=3") == "a.tar"
    assert storage.basename("/data/why?.tar") == "why?.tar"


def test_braces_are_written_out_with_their_zeros() -> None:
    assert storage.expand(["s3://b/{x,y}-{008..010}.tar"]) == [
        f"s3://b/{letter}-{number}.tar" for letter in "xy" for number in ("008", "009", "010")
    ]
    assert len(storage.expand(["a-{00000..00127}.tar", "a-{00100..00130}.tar"])) == 131
    with pytest.raises(ValueError, match=r"every \{ needs its \}"):
        storage.expand(["a-{0..3.tar"])


def test_globs_match_files_and_a_glob_without_match_is_named(folder: str) -> None:
    for name in ("a-0.tar", "a-1.tar", "b-0.tar", "sub/c.tar"):
        storage.create(storage.join(folder, name), b"x")
    names = [name.removeprefix(folder + "/") for name in storage.expand([folder + "/{b,a}-*.tar"])]
    assert names == ["a-0.tar", "a-1.tar", "b-0.tar"]
    assert storage.expand([folder + "/**/c.tar"]) == [folder + "/sub/c.tar"]
    assert storage.expand([folder + "/[b]-?.tar", folder + "/b-0.tar"]) == [folder + "/b-0.tar"]
    with pytest.raises(FileNotFoundError, match=r"no file matches .*z-\*\.tar"):
        storage.expand([folder + "/a-*.tar", folder + "/z-*.tar"])


def test_urls_without_glob_are_returned_unchecked(tmp_path: Path) -> None:
    literal = tmp_path / "set[1].tar"
    literal.write_bytes(b"x")
    urls = ["https://host/a.tar?sig=1&x=2", "s3://b/a.tar?versionId=7", str(literal), "none.tar"]
    assert storage.expand(urls) == sorted(urls)


def test_of_many_threads_creating_one_file_exactly_one_wins(tmp_path: Path) -> None:
    for turn in range(20):
        url = str(tmp_path / f"{turn}.bin")
        barrier = threading.Barrier(4)

        def attempt(
            writer: int, url: str = url, barrier: threading.Barrier = barrier
        ) -> int | None:
            barrier.wait()
            try:
                storage.create(url, bytes([writer]) * 10_000)
            except FileExistsError:
                return None
            return writer

        with ThreadPoolExecutor(4) as pool:
            winners = [who for who in pool.map(attempt, range(4)) if who is not None]
        assert len(winners) == 1
        assert storage.read_bytes(url) == bytes(winners) * 10_000
    assert len(os.listdir(tmp_path)) == 20  # no temporary file is left


def test_of_many_threads_creating_one_memory_object_exactly_one_wins(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/a"

    def attempt(writer: int) -> bool:
        try:
            storage.create(url, bytes([writer]))
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(64))) == 1


def test_without_hard_links_create_still_refuses_and_leaves_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "links are not supported here")

    monkeypatch.setattr(local_disk.os, "link", unsupported)
    url = str(tmp_path / "a")
    storage.create(url, b"one")
    with pytest.raises(FileExistsError):
        storage.create(url, b"two")
    assert storage.read_bytes(url) == b"one"
    assert os.listdir(tmp_path) == ["a"]


def test_a_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        storage.create(str(tmp_path / "a"), b"x")


def test_a_file_where_a_folder_is_needed_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(OSError, match=r"file|directory"):
        storage.create(str(tmp_path / "a" / "b"), b"x")


WRITE_TOO_MUCH = """
import os, resource, signal, sys
from lib.files import storage
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
if sys.argv[3] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write = getattr(storage, sys.argv[2])
try:
    write(sys.argv[1], bytes(4_000_000))
except OSError as error:
    raise SystemExit(f"errno {error.errno}")
"""


def run_writer(url: str, verb: str, limit: str) -> str:
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", WRITE_TOO_MUCH, url, verb, limit],
        cwd=root, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done
    return done.stderr.strip()


@pytest.mark.parametrize("verb", ["create", "replace"])
def test_a_write_that_hits_the_file_size_limit_leaves_nothing(tmp_path: Path, verb: str) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    (tmp_path / "other").write_bytes(b"x")
    assert run_writer(str(tmp_path / "a"), verb, "limit") == f"errno {errno.EFBIG}"
    assert os.listdir(tmp_path) == ["other"]


@pytest.mark.parametrize("verb", ["create", "replace"])
def test_a_full_disk_leaves_nothing_new_and_nothing_lost(tmp_path: Path, verb: str) -> None:
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mount.returncode:
        pytest.skip(f"a small disk needs the right to mount: {mount.stderr.strip()}")
    try:
        old = tmp_path / "old"
        old.write_bytes(b"kept")
        target = old if verb == "replace" else tmp_path / "new"
        assert run_writer(str(target), verb, "none") == f"errno {errno.ENOSPC}"
        assert os.listdir(tmp_path) == ["old"]
        assert old.read_bytes() == b"kept"
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_redact_stars_passwords_and_query_values() -> None:
    text = "GET https://me:pa@ss@host/a.tar?X-Amz-Signature=abc&v=1 failed, see s3://bucket/k@y"
    assert storage.redact(text) == (
        "GET https://***@host/a.tar?X-Amz-Signature=***&v=*** failed, see s3://bucket/k@y"
    )


@pytest.fixture
def refusing_server() -> Iterator[int]:
    class Refuse(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_no_signature_reaches_the_error_or_its_traceback(refusing_server: int) -> None:
    pytest.importorskip("aiohttp")
    url = f"http://user:hush@127.0.0.1:{refusing_server}/a.tar?signature=s3cret"
    with pytest.raises(OSError, match=r"a\.tar\?signature=\*\*\*") as caught:
        storage.read_bytes(url)
    shown = "".join(traceback.format_exception(caught.value))
    assert "s3cret" not in shown
    assert "hush" not in shown
