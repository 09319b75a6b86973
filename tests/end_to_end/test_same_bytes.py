"""One config and one input make one set of bytes, however the work is done."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from cluster.runner import run
from cluster.scheduling.orders import Rules
from cluster.settlement import Outcome
from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from pipelines.config import RunConfig

SHARDS, PICTURES = 4, 3

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def inputs(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of pictures, each with one sample that fails in another stage."""
    folder = tmp_path_factory.mktemp("same") / "in"
    for number in range(SHARDS):
        bad = [
            [("bad.jpg", b"words")],
            [("bad.txt", b"words")],
            [("../bad.png", b"")],
            shards.sample("bad", 1, width=4, height=4),
        ][number]
        members = shards.samples(PICTURES, first=100 * number)
        shards.write_tar(folder / f"in-{number}.tar", members[:1] + bad + members[1:])
    return str(folder / "in-*.tar")


@pytest.fixture
def make(tiny_checkpoint: Path, shards: ModuleType, inputs: str, tmp_path: Path) -> MakeConfig:
    def make(**execution: object) -> RunConfig:
        made: RunConfig = shards.config(
            tiny_checkpoint,
            inputs,
            tmp_path / "run",
            execution={"engine": "local", "device": "cpu"} | execution,
        )
        return made

    return make


@pytest.fixture
def drive(tmp_path: Path) -> Callable[[RunConfig], Outcome]:
    """Run to the end, and prove it."""

    def drive(made: RunConfig) -> Outcome:
        rules = Rules(workers=made.execution.workers, retry_pause_s=0.05)
        outcome = run(made, console=Console(quiet=True), rules=rules)
        assert (outcome.exit_code, outcome.done) == (0, SHARDS)
        assert verify(RunFolder(str(tmp_path / "run")), deep=True).problems == ()
        return outcome

    return drive


@pytest.fixture(scope="module")
def expected(
    tiny_checkpoint: Path,
    shards: ModuleType,
    inputs: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Path -> sha256 of a run in this process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("expected") / "run"
    made = shards.config(tiny_checkpoint, inputs, folder)
    assert run(made, console=Console(quiet=True)).exit_code == 0
    found: dict[str, str] = shards.hashes(folder)
    assert {name.split("/")[0] for name in found} == set(shards.HASHED)
    assert len(found) == SHARDS * 4 + 2
    return found


def test_a_run_that_was_killed_and_resumed(
    make: MakeConfig,
    drive: Callable[[RunConfig], Outcome],
    expected: dict[str, str],
    shards: ModuleType,
    tmp_path: Path,
) -> None:
    config = shards.write_config(tmp_path / "run.yaml", make())
    process = subprocess.Popen(
        shards.command("run", config),
        env=shards.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = RunFolder(str(tmp_path / "run"))
    deadline = time.monotonic() + 60
    while not folder.committed() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    done = folder.committed()
    assert done, "it had begun"
    drive(make())
    started = {event["shard"] for event in shards.events(tmp_path / "run", "shard_started")}
    assert started.isdisjoint(done), "what was committed is not done again"
    assert shards.hashes(tmp_path / "run") == expected


def test_a_run_in_which_every_commit_failed_once(
    make: MakeConfig,
    drive: Callable[[RunConfig], Outcome],
    expected: dict[str, str],
    shards: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed: set[str] = set()
    create = storage.create

    def flaky(url: str, data: bytes) -> None:
        if "/commit/" in url and url not in failed:
            failed.add(url)
            raise OSError(errno.EIO, "the disk lost its connection", url)
        create(url, data)

    monkeypatch.setattr(storage, "create", flaky)
    drive(make())
    assert len(failed) == SHARDS
    assert len(shards.events(tmp_path / "run", "shard_failed")) == SHARDS
    assert shards.hashes(tmp_path / "run") == expected


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for the runs of this module."""
    from cluster.pools.ray_session import Resources, ray_session

    with ray_session("local", 2, Resources(gpus=0.0, threads=1)):
        yield


@pytest.mark.ray
@pytest.mark.timeout(180)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_on_ray(
    make: MakeConfig,
    drive: Callable[[RunConfig], Outcome],
    expected: dict[str, str],
    shards: ModuleType,
    tmp_path: Path,
    ray_here: None,
    workers: int,
) -> None:
    drive(make(engine="ray", workers=workers))
    ready = shards.events(tmp_path / "run", "worker_ready")
    assert len({event["pid"] for event in ready}) == workers
    assert os.getpid() not in {event["pid"] for event in ready}
    assert shards.hashes(tmp_path / "run") == expected
