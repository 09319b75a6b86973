"""A writer killed at any moment leaves nothing that a reader would take wrongly."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lib.files import storage
from lib.files.tar_reader import read_members
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record
from lib.ledger.verification import verify

KILLS = 200
SHARDS = [f"{number:05d}" for number in range(4)]


@pytest.fixture
def writer() -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("killed_writer.py")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


def test_200_kills_leave_no_state_a_reader_would_take_wrongly(
    tmp_path: Path, writer: subprocess.Popen[str]
) -> None:
    rng = random.Random(20)
    undisturbed = _claimed(tmp_path / "undisturbed")
    started = time.perf_counter()
    assert _write(writer, undisturbed, None) == 0
    longest_life_s = 0.7 * (time.perf_counter() - started)
    finalize(undisturbed)
    final_states = {_state(undisturbed)}
    kills = jobs = resumed_jobs = leftovers = torn = 0
    while kills < KILLS:
        folder = _claimed(tmp_path / f"job-{jobs}")
        kills_before = kills
        while True:
            status = _write(writer, folder, rng.uniform(0.0, longest_life_s))
            kills += status == -signal.SIGKILL
            assert status in (0, -signal.SIGKILL)
            _assert_no_lie(folder)
            if not folder.pending(SHARDS):
                break
        jobs += 1
        resumed_jobs += kills > kills_before
        before = set(storage.list_tree(folder.root))
        torn += sum("/.tmp-" in name for name in before)
        finalize(folder)
        after = set(storage.list_tree(folder.root))
        leftovers += len(before - after)
        found = verify(folder, deep=True)
        assert (found.problems, found.notes) == ((), ())
        final_states.add(_state(folder))
    assert len(final_states) == 1
    assert resumed_jobs > 5, "the kills came too late to hit a job"
    assert torn > 0, "no kill hit a file being written"
    assert leftovers >= torn
    assert not [name for name in after if ".tmp-" in name]


def _claimed(path: Path) -> RunFolder:
    folder = RunFolder(str(path))
    folder.open_run(run_record({"weights": "ab12"}, {}))
    folder.add_inputs({shard: f"{shard}.tar" for shard in SHARDS})
    return folder


def _write(writer: subprocess.Popen[str], folder: RunFolder, life_s: float | None) -> int:
    """Exit status of a writer that is killed after `life_s`, unless it is done before (None:
    never).
    """
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write(f"{folder.root}\n")
    writer.stdin.flush()
    child = int(writer.stdout.readline())
    if life_s is not None:
        time.sleep(life_s)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return int(writer.stdout.readline())


def _assert_no_lie(folder: RunFolder) -> None:
    """Every committed shard is whole, every other one is pending, every tar of a final name is
    whole.
    """
    found = verify(folder, deep=True)
    pending = folder.pending(SHARDS)
    assert list(found.problems) == [
        f"shard {shard} is neither committed nor quarantined; run the same command again"
        for shard in pending
    ]
    assert found.committed + len(pending) == len(SHARDS)
    for name in storage.list_names(folder.url("images")):
        if name.endswith(".tar"):
            data = storage.read_bytes(folder.url("images", name))
            assert read_members(data, len(data)).damage is None
            assert hashlib.sha256(data).hexdigest()[:16] == name.removesuffix(".tar")[-16:]


def _state(folder: RunFolder) -> str:
    digest = hashlib.sha256()
    for name in storage.list_tree(folder.root):
        digest.update(f"{name}\0".encode())
        digest.update(storage.read_bytes(folder.url(*name.split("/"))))
    return digest.hexdigest()
