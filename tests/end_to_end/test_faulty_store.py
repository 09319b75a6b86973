"""Whole runs from S3 to S3 through a proxy that spoils answers, by the command line."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import fsspec
import pytest

from benchmarks.faulty_s3 import Fault, FaultyS3, Plan, Request, random_faults
from cluster.cli import main
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify

pytestmark = pytest.mark.timeout(180)
SHARDS, PICTURES = 3, 2
KEY, SECRET, TOKEN, OTHER_SECRET = (
    f"{name}/{name}+Q7xZ" for name in ("KEYID", "SECRETKEY", "SESSIONTOKEN", "FSSPECSECRET")
)
PASSWORD, SIGNATURE = "p4ssw0rd-of-a-user", "51gnature-of-a-url"


@pytest.fixture
def store(bucket: str, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket that other processes know by their environment."""
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("FSSPEC_S3_CONFIG_KWARGS", '{"read_timeout": 2, "connect_timeout": 2}')
    return bucket


@pytest.fixture
def config(store: str, shards: ModuleType, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    shards.write_shards(tmp_path, SHARDS, PICTURES)
    for path in tmp_path.glob("in-*.tar"):
        storage.create(storage.join(store, "in", path.name), path.read_bytes())
    pattern = storage.join(store, "in", f"in-{{0..{SHARDS - 1}}}.tar")
    made = shards.config(tiny_checkpoint, pattern, storage.join(store, "run"))
    return Path(shards.write_config(tmp_path / "run.yaml", made))


def assert_whole(root: str) -> None:
    found = verify(RunFolder(root), deep=True)
    assert (found.problems, found.notes) == ((), ())
    assert (found.committed, found.quarantined) == (SHARDS, 0)
    assert (found.samples_ok, found.samples_err) == (SHARDS * PICTURES, 0)


def test_a_run_among_faults_ends_whole(
    config: Path, store: str, s3: FaultyS3, shards: ModuleType
) -> None:
    start = len(s3.seen)
    s3.plan = random_faults(seed=11, rate=0.2)
    done = shards.deltah("run", config)
    s3.plan = None
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert sum(fault is not None for _, fault in s3.seen[start:]) > 5
    assert_whole(storage.join(store, "run"))


def test_a_store_that_stays_down_stops_the_run_and_when_it_is_back_it_goes_on(
    config: Path, store: str, s3: FaultyS3, shards: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits: list[Request] = []

    def down_after_a_commit(request: Request) -> Fault | None:
        if request.operation == "PutObject" and "/commit/" in request.path:
            commits.append(request)
        return Fault.CUT_BEFORE if len(commits) > 1 else None

    s3.plan = down_after_a_commit
    with monkeypatch.context() as hasty:
        hasty.setenv("DELTAH_STORE_PATIENCE_S", "0.5")
        hasty.setenv("AWS_MAX_ATTEMPTS", "1")
        stopped = shards.deltah("run", config)
    assert stopped.returncode == 1, stopped.stderr
    sentence = stopped.stderr.strip().splitlines()[-1]
    assert "the store failed" in sentence
    assert "run the same command again" in sentence
    assert "Traceback" not in stopped.stderr

    s3.plan = None
    folder = RunFolder(storage.join(store, "run"))
    assert not folder.quarantined_names(), "it was no shard's fault"
    committed = folder.committed()
    assert len(committed) == 1
    start = len(s3.seen)
    again = shards.deltah("run", config)
    assert again.returncode == 0, again.stderr
    read = {request.path for request, _ in s3.seen[start:] if request.operation == "GetObject"}
    assert not [path for path in read if f"/in/{next(iter(committed))}" in path]
    assert_whole(folder.root)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """`user:password@host:port` of a web server that keeps `in-1.tar` back."""

    class Files(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.path = self.path.partition("?")[0]
            if "in-1" in self.path:
                self.send_error(403, f"{PASSWORD} is wrong")
            else:
                super().do_GET()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    files = partial(Files, directory=str(tmp_path / "web"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), files)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"user:{PASSWORD}@127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def images_refused(count: int) -> Plan:
    """Spoils the first so many writes of images, which takes a shard's attempts."""
    seen: list[Request] = []

    def plan(request: Request) -> Fault | None:
        if request.operation == "PutObject" and "/images/" in request.path:
            seen.append(request)
            return Fault.SLOW_DOWN if len(seen) <= count else None
        return None

    return plan


def test_no_credential_reaches_what_a_run_leaves_or_prints(
    store: str,
    s3: FaultyS3,
    web: str,
    shards: ModuleType,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Neither from URLs, the environment and fsspec's settings, nor from what a server answers."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "FSSPEC_S3_SECRET": OTHER_SECRET,
        "FSSPEC_S3_KEY": KEY,
        "DELTAH_STORE_PATIENCE_S": "0.2",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    settings = fsspec.config.conf["s3"] | {"key": KEY, "secret": OTHER_SECRET}
    monkeypatch.setitem(fsspec.config.conf, "s3", settings)
    secrets = [KEY, SECRET, TOKEN, OTHER_SECRET, PASSWORD, SIGNATURE]
    s3.message = f"the key {KEY}, secret {SECRET} and token {quote(TOKEN, safe='')} were refused"
    shards.write_shards(tmp_path / "web", 2, 2)
    urls = [f"http://{web}/in-{n}.tar?X-Amz-Signature={SIGNATURE}&Expires=1" for n in (0, 1)]
    root = storage.join(store, "run")
    values = shards.config(tiny_checkpoint, "-", root, input={"shards": urls})
    config = shards.write_config(tmp_path / "run.yaml", values)
    printed: list[str] = []

    def call_here(*arguments: str) -> object:
        """Without starting another Python."""
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        printed.append("".join(capsys.readouterr()))
        return ended.value.code

    for fault in (Fault.FORBIDDEN, Fault.SLOW_DOWN):
        s3.plan = lambda request, fault=fault: fault
        assert call_here("run", str(config)) == 1
    s3.plan = images_refused(2)
    done = shards.deltah("run", config)
    printed.append(done.stdout + done.stderr)
    assert done.returncode == 3, done.stderr
    s3.plan = None
    assert call_here("plan", str(config)) == 0
    assert call_here("status", root) == 0
    assert call_here("show", root, "--no-open") == 0
    assert call_here("run", str(config), "--set", f"input.fit={SECRET}") == 2

    files = {name: storage.read_bytes(storage.join(root, name)) for name in storage.list_tree(root)}
    assert {"run.json", "inputs.json", "quarantine/in-1.json", "report/index.html"} < set(files)
    assert any(name.startswith("events/") and b"shard_failed" in files[name] for name in files)
    said = "".join(printed)
    assert "in-1.tar?X-Amz-Signature=***" in said, "there was something to hide"
    for secret in secrets:
        for form in (secret, quote(secret, safe="")):
            assert form not in said
            assert not [name for name, data in files.items() if form.encode() in data]
