"""`deltah train` as a user runs it: its messages, and a kill at a random moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.cli import main
from lib.editors.editor_table import read_editor_rows

ROOT = Path(__file__).resolve().parents[3]
Written = Callable[..., Path]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_a_training_says_what_came_of_it_and_does_nothing_twice(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written("once")
    assert run("train", str(path)) == 0
    said = capsys.readouterr().err
    (record,) = read_editor_rows(str(path.with_suffix("")))
    assert f"trained bright: direction {record.id} on 8 images, 5 steps" in said
    assert "learned: {path:" in said
    before = {p: p.stat().st_mtime_ns for p in path.with_suffix("").rglob("*") if p.is_file()}
    assert run("train", str(path)) == 0
    after = {p: p.stat().st_mtime_ns for p in path.with_suffix("").rglob("*") if p.is_file()}
    assert after == before


def test_a_mistake_is_named_by_its_path_with_the_nearest_key(
    written: Written, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("train", str(written("wrong", training={"stepz": 3}))) == 2
    assert "training.stepz: unknown key; did you mean `steps`?" in capsys.readouterr().err


def test_a_check_trains_nothing(written: Written, capsys: pytest.CaptureFixture[str]) -> None:
    path = written("checked")
    assert run("train", str(path), "--check") == 0
    assert "network evaluations  80" in capsys.readouterr().err
    assert not path.with_suffix("").exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_training_killed_at_a_random_step_ends_with_the_weights_of_one_that_was_not(
    written: Written, seed: int
) -> None:
    schedule = {"steps": 60, "batch_size": 4, "checkpoint_every": 3}
    whole, killed = (written(name, training=schedule) for name in ("whole", "killed"))
    assert run("train", str(whole)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster", "train", str(killed)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    checkpoints = killed.with_suffix("") / "checkpoints"
    wanted = random.Random(seed).randrange(1, 12)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        names = sorted(p.name for p in checkpoints.glob("step-*")) if checkpoints.is_dir() else []
        if names and int(names[-1][5:13]) >= 3 * wanted:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed.with_suffix("") / "library.json").exists(), "it ended before it was killed"
    assert run("train", str(killed)) == 0
    files = [next((p.with_suffix("") / "editors").iterdir()) for p in (whole, killed)]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()
