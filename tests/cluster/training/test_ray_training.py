"""A training on Ray Train: two workers against one, and a worker that is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from cluster.cli import main
from lib.editors.editor_files import read_editor

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
Written = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def _ray() -> Iterator[None]:
    """One Ray for all tests here."""
    from cluster.pools.ray_session import Resources, ray_session

    before = os.environ.get("PYTHONPATH")
    root = str(Path(__file__).resolve().parents[3])
    os.environ["PYTHONPATH"] = root if before is None else f"{root}{os.pathsep}{before}"
    with ray_session("local", 2, Resources(gpus=0.0, threads=1)):
        yield


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def delta(config: Path) -> torch.Tensor:
    (file,) = (config.with_suffix("") / "editors").iterdir()
    return read_editor(str(file))[1]["delta_h"]


def test_two_workers_take_the_steps_of_one_with_batches_twice_as_large(
    written: Written, tmp_path: Path
) -> None:
    # batch_size is that of all workers together. Adam's first steps count signs alone, so that the
    # rounding of small gradients is magnified there.
    schedule = {"steps": 5, "batch_size": 8, "optimizer": "sgd"}
    editor = {"kind": "delta_h", "name": "bright", "window": [900, 0], "learning_rate": 3.0}
    scratch = tmp_path / "scratch"
    sections = {"training": schedule, "editor": editor, "execution": {"cache": str(scratch)}}
    one, two = (written(name, **sections) for name in ("one", "two"))
    scratch.mkdir()
    assert run("train", str(one)) == 0
    assert run("train", str(two), "--engine", "ray", "--workers", "2") == 0
    a, b = delta(one), delta(two)
    assert float(a.abs().max()) > 1e-3
    assert float((a - b).abs().max() / a.abs().max()) < 1e-5
    assert not list(scratch.iterdir())


def test_a_lost_worker_is_replaced_and_leaves_no_trace(written: Written) -> None:
    schedule = {"steps": 40, "batch_size": 4, "checkpoint_every": 2}
    whole, killed = (written(name, training=schedule) for name in ("whole", "lost"))
    assert run("train", str(whole)) == 0
    checkpoints = killed.with_suffix("") / "checkpoints"

    def kill() -> None:
        while not (checkpoints.is_dir() and len(list(checkpoints.iterdir())) > 1):
            time.sleep(0.05)
        for process in psutil.process_iter(["cmdline"]):
            if any("RayTrainWorker" in part for part in process.info["cmdline"] or ()):
                process.send_signal(signal.SIGKILL)
                return

    thread = threading.Thread(target=kill)
    thread.start()
    assert run("train", str(killed), "--engine", "ray") == 0
    thread.join()
    assert torch.equal(delta(whole), delta(killed))
