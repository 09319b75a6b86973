"""Jobs on a Ray head that wants a token: sent, followed, refused, stopped, resumed."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
TOKEN = secrets.token_hex(16)


@dataclass(frozen=True)
class Head:
    """A Ray head of our own, on this machine."""

    url: str
    folder: Path

    def deltah(
        self, *arguments: object, token: str | None = TOKEN, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """The command line, as on a laptop that only knows address and token."""
        return subprocess.run(
            self.command(*arguments),
            env=self.environment(token),
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def begun(self, *arguments: object) -> subprocess.Popen[str]:
        """The same, still running."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment(TOKEN),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def command(*arguments: object) -> list[str]:
        return [sys.executable, "-m", "cluster", *map(str, arguments)]

    def environment(self, token: str | None) -> dict[str, str]:
        here = {"PYTHONPATH": str(ROOT), "RAY_API_SERVER_ADDRESS": self.url}
        return clean() | here | ({} if token is None else {"RAY_AUTH_TOKEN": token})


def clean() -> dict[str, str]:
    """This environment without what concerns Ray, and without a way to import this checkout."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH"))}


def free_ports(count: int) -> list[int]:
    """Outside of those that Ray gives to its workers, from 10002 to 19999."""
    found: list[int] = []
    for port in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    folder = tempfile.mkdtemp(prefix="dj", dir="/tmp")  # a socket's path must be short
    port, dashboard, client = free_ports(3)
    programs = Path(sys.executable).parent
    environment = clean() | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "OMP_NUM_THREADS": "1",
    }
    options = f"""--head --block --num-cpus=2 --object-store-memory=100000000 --port={port}
        --dashboard-port={dashboard} --ray-client-server-port={client}
        --dashboard-agent-listen-port=0"""
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    log = Path(folder) / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "start", *shlex.split(options)],
            env=environment,
            stdout=file,
            stderr=file,
            cwd=folder,
        )
    url = f"http://127.0.0.1:{dashboard}"
    try:
        deadline = time.monotonic() + 240
        while not answers(f"{url}/api/version"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Head(url, Path(folder))
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


@pytest.fixture
def config(tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path) -> Callable[..., Path]:
    """A config of some shards on two workers of the head, written to a file."""

    def made(count: int, pictures: int, **sections: Mapping[str, object]) -> Path:
        pattern = shards.write_shards(tmp_path / "in", count, pictures)
        values = shards.config(tiny_checkpoint, pattern, tmp_path / "run", **sections)
        return Path(shards.write_config(tmp_path / "faces of two.yaml", values))

    return made


@contextlib.contextmanager
def breaking_off(url: str) -> Iterator[tuple[str, list[int]]]:
    """Another address of the head, by which the first log breaks off after its first bytes, as
    through a port-forward that is lost; and how many bytes that log was given."""
    cut: list[int] = []
    port = urllib.parse.urlsplit(url).port

    class Forward(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection(("127.0.0.1", port)) as server:
                request = self.request.recv(65536)
                server.sendall(request)
                threading.Thread(target=self.pass_on, args=(server,), daemon=True).start()
                answered = 0
                while data := server.recv(65536):
                    if b"/logs/tail" in request and not cut and answered:
                        cut.append(len(data))
                        self.request.sendall(data[: len(data) // 2])
                        self.request.shutdown(socket.SHUT_RDWR)
                        return
                    answered += len(data)
                    self.request.sendall(data)

        def pass_on(self, server: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while data := self.request.recv(65536):
                    server.sendall(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forward) as proxy:
        proxy.daemon_threads = True
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_address[1]}", cut
        proxy.shutdown()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "wants a token"), ("f" * 32, "refuses the token that we have")],
)
def test_without_the_right_token_one_sentence_says_what_to_set(
    head: Head, token: str | None, said: str
) -> None:
    stores = ("--set", "input.shards=[s3://b/x.tar]", "--set", "output.folder=s3://b/out")
    for arguments in (("submit", "demo", *stores), ("job", "list")):
        ran = head.deltah(*arguments, token=token)
        assert (ran.returncode, ran.stdout) == (2, "")
        (line,) = ran.stderr.splitlines()
        assert line.startswith(f"error: the Ray head at {head.url} {said}; set RAY_AUTH_TOKEN, or ")
        assert "f" * 32 not in line


def test_a_job_runs_with_our_code_is_followed_and_ends_as_deltah_does(
    head: Head, config: Callable[..., Path], tmp_path: Path, shards: ModuleType
) -> None:
    file = config(3, 2)
    (tmp_path / "in" / "in-1.tar").write_bytes(b"no tar at all")
    ran = head.deltah("submit", file.name, "--workers", 2, cwd=tmp_path)
    assert ran.returncode == 3, ran.stderr + ran.stdout
    assert "2 of 3 shards done, 1 quarantined" in ran.stdout
    (job,) = re.findall(r"^submitted job (faces-of-two-\w+) to", ran.stderr, flags=re.MULTILINE)
    assert f"job {job} ended with exit code 3" in ran.stderr
    assert TOKEN not in ran.stdout + ran.stderr
    found = verify(RunFolder(str(tmp_path / "run")), deep=True)
    assert (found.problems, found.committed, found.quarantined) == ((), 2, 1)
    (started,) = shards.events(tmp_path / "run", "run_started")
    assert (started["engine"], started["workers"]) == ("ray", 2)

    with breaking_off(head.url) as (url, cut):
        again = head.deltah("job", "follow", job, "--address", url)
    assert len(cut) == 1
    assert (again.returncode, again.stdout) == (3, ran.stdout), "whole, over two connections"
    listed = head.deltah("job", "list").stdout
    assert job in listed
    assert "failed" in listed


def test_what_only_the_cluster_can_tell_is_refused_there_with_exit_code_2(
    head: Head, config: Callable[..., Path], tmp_path: Path
) -> None:
    gone = f"input.shards=['{tmp_path}/gone/{{0..3}}.tar']"
    ran = head.deltah("submit", config(1, 1), "--set", gone)
    assert ran.returncode == 2
    assert "none of the 4 files is there" in ran.stdout
    assert not (tmp_path / "run").exists()


def test_a_bad_config_is_refused_here_and_no_job_is_sent(
    head: Head, config: Callable[..., Path]
) -> None:
    before = head.deltah("job", "list").stdout
    ran = head.deltah("submit", config(1, 1), "--set", "edit.strenghts=[1]")
    assert ran.returncode == 2
    assert "did you mean `strengths`" in ran.stderr
    assert head.deltah("job", "list").stdout.count("faces") == before.count("faces")


def test_a_job_that_is_left_stopped_and_killed_goes_on_when_submitted_again(
    head: Head, config: Callable[..., Path], tmp_path: Path, shards: ModuleType
) -> None:
    file, folder = config(14, 4), RunFolder(str(tmp_path / "run"))
    sent = head.deltah("submit", file, "--no-follow")
    assert sent.returncode == 0
    job = sent.stdout.strip()
    with head.begun("job", "follow", job) as watching:
        wait_for(folder.committed)
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=120)
    assert watching.returncode == 130
    assert f"deltah job stop {job} --address {head.url}" in said

    stopped = head.deltah("job", "stop", job)
    assert stopped.returncode == 0
    assert "killed if it takes longer than 600 s" in stopped.stderr
    assert "SIGTERM: finishing the" in stopped.stdout
    assert "run the same command again to go on" in stopped.stdout
    done = folder.committed()
    assert 0 < len(done) < 14
    starts = [event["shard"] for event in shards.events(tmp_path / "run", "shard_started")]
    assert set(starts) == done, "what was in flight was finished, not thrown away"
    assert "nothing to stop" in head.deltah("job", "stop", job).stdout

    with head.begun("submit", file) as watching:
        wait_for(lambda: folder.committed() - done)
        (driver,) = drivers(head)
        os.kill(driver, signal.SIGKILL)
        _, said = watching.communicate(timeout=120)
    assert watching.returncode == 1
    assert "ended by signal 9; submit the same config again to go on" in said

    again = head.deltah("submit", file)
    assert again.returncode == 0, again.stdout
    assert "14 of 14 shards done" in again.stdout
    assert verify(folder, deep=True).ok


def drivers(head: Head) -> list[int]:
    """Processes of the head that run the command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            of_head = str(head.folder).encode() in (path / "environ").read_bytes()
            if words[1:4] == [b"-m", b"cluster", b"run"] and of_head:
                found.append(int(path.name))
    return found


def test_rays_own_job_submit_with_this_checkout_works_too(
    head: Head, config: Callable[..., Path], tmp_path: Path
) -> None:
    file = config(1, 1, execution={"engine": "ray"})
    code = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "job", "submit", "--address", head.url]
    command += ["--working-dir", ".", "--", "python", "-m", "cluster", "run", str(file)]
    ran = subprocess.run(
        command,
        env=head.environment(TOKEN) | {"RAY_AUTH_MODE": "token"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 of 1 shards done" in ran.stdout
    assert verify(RunFolder(str(tmp_path / "run"))).ok


def test_an_unknown_job_and_a_head_that_is_none_are_one_sentence(head: Head) -> None:
    for verb in ("follow", "stop"):
        ran = head.deltah("job", verb, "nothing")
        assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
        assert "Job nothing does not exist" in ran.stderr
    (port,) = free_ports(1)
    ran = head.deltah("job", "list", "--address", f"http://127.0.0.1:{port}")
    assert (ran.returncode, len(ran.stderr.splitlines())) == (2, 1)
    assert f"no Ray dashboard answers at http://127.0.0.1:{port}" in ran.stderr
