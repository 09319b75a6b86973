"""The engine's benchmark in small: what it measures is what happened."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.engine import SIDE, row, targets, write_checkpoint, write_shards
from benchmarks.engine_run import Measured, Order, again_s, config_of, in_process_of_its_own
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from pipelines.inputs import expand_inputs
from pipelines.memory_budget import largest_shard, memory_budget

pytestmark = pytest.mark.timeout(120)


def test_a_small_run_is_measured_whole(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, shards=2, images=9)
    order = Order(
        "local", 1, paths, write_checkpoint(tmp_path / "model"), str(tmp_path / "out"),
        image_s=0.01, side=SIDE, format="jpeg",
    )  # fmt: skip
    found = in_process_of_its_own(order)
    assert found.images == 18
    assert found.steady >= 1, "no model is faster than itself"
    assert found.images_per_s == pytest.approx(1 / (found.steady * 0.01))
    assert 0 < found.wait_share < 1
    assert found.store_bytes == 0
    assert found.first_image_s > 0
    assert found.image_cpu_s > 0
    config = config_of(order)
    size = largest_shard(config, expand_inputs(config.input.shards))
    assert size is not None
    assert found.peak_bytes < memory_budget(config, size).host
    folder = RunFolder(config.output.folder)
    assert verify(folder, deep=True).ok
    (tar,) = list((tmp_path / "out" / "run" / "images").glob("photographs-000*"))
    with tarfile.open(tar) as archive:
        names = [name for name in archive.getnames() if name.endswith(".jpg")]
        file = archive.extractfile(names[0])
        assert file is not None
        assert Image.open(io.BytesIO(file.read())).size == (SIDE, SIDE)
    assert len(names) == 9
    assert again_s(order) > 0


def test_targets_are_of_the_best_repetition_and_of_the_worst_memory() -> None:
    def measured(speed: float, peak: int) -> Measured:
        return Measured(100, 50 / speed, speed, 1 / speed, 5.0, peak, 0, 0.004)

    runs = {
        ("local", 1): [measured(50, 500), measured(48, 600)],
        ("ray", 1): [measured(40, 500), measured(45, 500)],
        ("ray", 2): [measured(90, 500), measured(80, 900)],
    }
    found = {target.name: target for target in targets(runs, 1000)}
    assert found["steady wall time / model time, local"].value == 1
    assert found["ray / local"].value == pytest.approx(50 / 45)
    assert found["two workers / one"].value == 2
    assert found["largest worker / its memory budget"].value == 0.9
    assert found["two workers / one"].row().endswith("yes")
    assert found["ray / local"].row().endswith("NO")
    assert "1.000 (1.021)" in row("local", 1, runs["local", 1])
