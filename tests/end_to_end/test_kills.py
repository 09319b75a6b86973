"""kill -9 on real Ray: of the driver, then of a worker of the same command run again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SHARDS, PICTURES, WORKERS = 10, 4, 2


@dataclass(frozen=True)
class Abandoned:
    """A run whose driver was killed."""

    command: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    committed: frozenset[str]
    """When the driver was killed."""
    processes: frozenset[int]
    """All that descended from the driver then."""


def wait_for(condition: Callable[[], object], process: subprocess.Popen[bytes], log: Path) -> None:
    """Until `condition` holds; fails when the process ends or 300 s pass before."""
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def descendants(pid: int) -> frozenset[int]:
    """Processes below `pid`, by the parents that the kernel names."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(after_name[1])
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return frozenset(found)


def title(pid: int) -> str:
    """A process's command line; "" when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


@pytest.fixture(scope="module")
def abandoned(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Abandoned]:
    root = tmp_path_factory.mktemp("kills")
    # A killed driver cannot remove what Ray wrote; a socket's path must be short.
    temporary = tempfile.mkdtemp(prefix="kills", dir="/tmp")
    environment = shards.environment(TMPDIR=temporary)
    pattern = shards.write_shards(root / "in", SHARDS, PICTURES)
    made = shards.config(tiny_checkpoint, pattern, root / "run")
    config = shards.write_config(root / "run.yaml", made)
    command = shards.command("run", config, "--engine", "ray", "--workers", WORKERS)
    log, folder = root / "log", RunFolder(str(root / "run"))
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=environment, stdout=file, stderr=file) as driver,
    ):
        try:
            wait_for(lambda: len(folder.committed()) >= 2, driver, log)
            processes = descendants(driver.pid)
        finally:
            os.kill(driver.pid, signal.SIGKILL)
    yield Abandoned(command, environment, root / "run", log, folder.committed(), processes)
    shutil.rmtree(temporary, ignore_errors=True)


def test_kill_9_of_the_driver_ends_the_workers_and_ray_itself(abandoned: Abandoned) -> None:
    """But for two small agents of Ray, which end a minute or two later."""
    assert len(abandoned.committed) < SHARDS, "it was killed in the middle"
    assert abandoned.processes
    deadline = time.monotonic() + 30
    while (
        left := [t for t in map(title, abandoned.processes) if t and not t.endswith("Agent")]
    ) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_the_same_command_again_goes_on_and_outlives_kill_9_of_a_worker(
    abandoned: Abandoned, shards: ModuleType
) -> None:
    folder = RunFolder(str(abandoned.folder))
    before = folder.committed()
    assert before >= abandoned.committed
    # The killed driver wrote its events only if it lived for half a minute.
    shutil.rmtree(abandoned.folder / "events", ignore_errors=True)
    with (
        abandoned.log.open("wb") as file,
        subprocess.Popen(
            abandoned.command, env=abandoned.environment, stdout=file, stderr=file
        ) as driver,
    ):
        try:
            wait_for(lambda: len(folder.committed()) > len(before), driver, abandoned.log)
            working = [p for p in descendants(driver.pid) if title(p).startswith("ray::Worker")]
            assert len(working) == WORKERS
            os.kill(working[0], signal.SIGKILL)
            assert driver.wait(400) == 0, abandoned.log.read_text()
        finally:
            if driver.poll() is None:
                driver.kill()

    found = verify(folder, deep=True)
    assert found.problems == ()
    assert found.notes == ()
    assert (found.committed, found.quarantined) == (SHARDS, 0)
    assert (found.samples_ok, found.samples_err) == (SHARDS * PICTURES, 0)

    (died,) = shards.events(abandoned.folder, "worker_died")
    assert not died["node_lost"]
    starts = Counter(e["shard"] for e in shards.events(abandoned.folder, "shard_started"))
    assert set(starts) == set(folder.inputs()) - before, "what was committed is not done again"
    assert starts.total() <= len(starts) + 2, "only what was in flight in the killed worker"
    assert "Traceback" not in abandoned.log.read_text()
