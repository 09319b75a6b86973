"""An output that takes no more: one sentence, and the same command goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SHARDS, PICTURES = 4, 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 120 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    options = [mount, "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(place)]
    if subprocess.run(options, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_with_room_it_goes_on(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, small_disk: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", SHARDS, PICTURES)
    made = shards.config(tiny_checkpoint, pattern, small_disk / "run")
    config = shards.write_config(tmp_path / "run.yaml", made)
    full = shards.deltah("run", config)
    assert full.returncode == 1
    sentence = full.stderr.strip().splitlines()[-1]
    assert "No space left on device" in sentence
    assert "run the same command again" in sentence
    assert "Traceback" not in full.stderr
    assert not list((small_disk / "run").glob("*/.tmp-*")), "nothing half-written is left"
    assert not (small_disk / "run" / "quarantine").exists(), "it was no shard's fault"

    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    again = shards.deltah("run", config)
    assert again.returncode == 0, again.stderr
    proof = shards.deltah("verify", small_disk / "run", "--deep")
    assert proof.returncode == 0, proof.stdout
    assert f"{SHARDS * PICTURES} samples ok, 0 in errors" in proof.stdout
