"""Regions learned from all images: the same however the work is done, and the parts of a face."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from rich.console import Console

from cluster.runner import run
from cluster.scheduling.orders import Rules
from lib.demo.faces import CLASSES, masks, sample_factors
from lib.demo.shards import write_shards
from lib.files.samples import read_shard
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.masks.cluster_names import read_regions, write_names
from lib.problems import ConfigProblem
from lib.receipts import ShardTask
from pipelines.config import RunConfig
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.plan import make_plan
from pipelines.reading import SampleReader
from pipelines.region_sheet import write_region_sheet
from pipelines.report.page import write_report
from pipelines.worker import ShardWorker

SHARDS, FACES, SEED = 3, 12, 31
HAIR, SKIN = CLASSES.index("hair"), CLASSES.index("skin")


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("faces")
    write_shards(str(folder), shards=SHARDS, faces_per_shard=FACES, seed=SEED)
    return str(folder / "*.tar")


def config_of(faces: str, folder: Path, **execution: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "pipeline": "region_model",
            "input": {"shards": [faces]},
            "invert": {"batch_size": 4},
            "region_model": {"clusters": 16, "pixels": 128, "coreset": 128},
            "output": {"folder": str(folder)},
            "execution": {"engine": "local", "device": "cpu"} | execution,
        }
    )


def drive(made: RunConfig) -> None:
    """Run to the end, and prove it."""
    rules = Rules(workers=made.execution.workers, retry_pause_s=0.05)
    outcome = run(made, console=Console(quiet=True), rules=rules)
    assert (outcome.exit_code, outcome.done) == (0, SHARDS), outcome.sentence
    assert verify(RunFolder(made.output.folder), deep=True).problems == ()


@pytest.fixture(scope="module")
def learned(faces: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in this process that nothing disturbs."""
    folder = tmp_path_factory.mktemp("learned") / "run"
    drive(config_of(faces, folder))
    return folder


@pytest.fixture(scope="module")
def expected(learned: Path, shards: ModuleType) -> dict[str, str]:
    found: dict[str, str] = shards.hashes(learned)
    assert {name.split("/")[0] for name in found} == {"commit", "manifest", "merged", "statistics"}
    return found


def test_two_workers_leave_the_same_bytes(
    faces: str, expected: dict[str, str], shards: ModuleType, tmp_path: Path
) -> None:
    made = config_of(faces, tmp_path / "run")
    paths = {path.stem: str(path) for path in sorted(Path(faces).parent.glob("*.tar"))}
    folder, print_ = shards.claimed(made, paths)
    workers = [ShardWorker(made.model_dump_json(), print_) for _ in range(2)]
    for turn, (name, path) in enumerate(reversed(paths.items())):
        workers[turn % 2].run(ShardTask(name, path, 1))
    finalize(folder)
    assert shards.hashes(tmp_path / "run") == expected


def test_a_run_that_was_killed_and_resumed_leaves_the_same_bytes(
    faces: str, expected: dict[str, str], shards: ModuleType, tmp_path: Path
) -> None:
    made = config_of(faces, tmp_path / "run")
    config = shards.write_config(tmp_path / "run.yaml", made)
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
    assert folder.committed(), "it had begun"
    drive(made)
    assert shards.hashes(tmp_path / "run") == expected


def parts_of_clusters(faces: str, learned: Path) -> dict[int, str]:
    """Each cluster's part by the generator's masks of the faces it was learned from."""
    regions = read_regions(str(learned))
    numbers_BHW = numbers(faces, learned)
    factors = [sample_factors(FACES, SEED + shard) for shard in range(SHARDS)]
    truth_BHW = masks(torch.cat(factors)).segmentation_BKHW.argmax(1)
    found = {}
    for k in range(regions.model.clusters):
        counts = torch.bincount(truth_BHW[numbers_BHW == k], minlength=len(CLASSES))
        found[k] = CLASSES[int(counts.argmax())]
    return found


def numbers(faces: str, learned: Path) -> torch.Tensor:
    """The regions of all images of the shards that `faces` names."""
    from concurrent.futures import ThreadPoolExecutor

    from lib.masks.automatic import AutomaticMasks
    from pipelines.engine import load_model
    from pipelines.region_model import feature_reader

    config = config_of(faces, learned)
    denoiser, _, _ = load_model(config)
    model = read_regions(str(learned)).model
    reader = feature_reader(config, denoiser, model.study.timesteps, model.study.blocks)
    found = []
    with ThreadPoolExecutor(1) as pool:
        for path in sorted(Path(faces).parent.glob("*.tar")):
            read = SampleReader(config.input, image_size=64, claimed=frozenset(), fingerprint="",
                                pool=pool, ahead=4)  # fmt: skip
            data = path.read_bytes()
            raw = read_shard(data, path.stem, max_bytes=len(data), salvage=False).samples
            images = torch.stack([s.image_CHW for s in read(raw, pytest.fail)])
            masks_of = AutomaticMasks(reader, model, {}, min_component=0)
            found.append(masks_of.numbers(images)[0])
    return torch.cat(found)


def test_named_regions_are_the_masks_of_a_whole_job(
    faces: str, learned: Path, tmp_path: Path
) -> None:
    """Hair and skin of faces that the regions were not learned from."""
    write_names(read_regions(str(learned)), parts_of_clusters(faces, learned))
    held = write_shards(str(tmp_path), shards=1, faces_per_shard=3, seed=77, name="held")[0]
    made = RunConfig.model_validate(
        {
            "input": {"shards": [held]},
            "grid": {"num_steps": 4},
            "invert": {"batch_size": 2},
            "segment": {
                "providers": {"parts": {"kind": "automatic", "path": str(learned)}},
                "regions": {
                    "hair": {"from": "parts", "labels": ["hair"]},
                    "skin": {"from": "parts", "labels": ["skin"]},
                },
            },
            "discover": {"method": "jacobian", "directions": 1, "max_rounds": 2},
            "edit": {"strengths": [0.1], "window": [560, 300]},
            "output": {"folder": str(tmp_path / "run"), "layout": "pairs"},
            "execution": {"engine": "local", "device": "cpu"},
        }
    )
    assert make_plan(made, []).reading == 1
    outcome = run(made, console=Console(quiet=True))
    assert outcome.exit_code == 0
    rows = pq.read_table(tmp_path / "run/manifest").to_pylist()
    assert len(rows) == 3 * 2
    truth_BKHW = masks(sample_factors(3, 77)).segmentation_BKHW
    for row in rows:
        shape = truth_BKHW[row["index"]].argmax(0).numpy()
        with Image.open(_member(tmp_path / "run", row)) as image:
            mask_HW = np.asarray(image.convert("L")) > 127
        true_HW = shape == CLASSES.index(row["region"])
        iou = (mask_HW & true_HW).sum() / (mask_HW | true_HW).sum()
        assert iou > 0.4, (row["region"], iou)


def _member(run_folder: Path, row: dict[str, Any]) -> Any:
    import io
    import tarfile

    name = row["member"].replace(".edited.png", ".mask.png")
    with tarfile.open(run_folder / "images" / row["image"]) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return io.BytesIO(file.read())


def test_names_enter_the_fingerprint_by_what_they_mean(learned: Path, tmp_path: Path) -> None:
    copy = tmp_path / "regions.safetensors"
    copy.write_bytes((learned / "merged/regions.safetensors").read_bytes())
    made = RunConfig.model_validate(
        {
            "input": {"shards": ["x.tar"]},
            "segment": {
                "providers": {"parts": {"kind": "automatic", "path": str(copy)}},
                "regions": {"hair": {"from": "parts", "labels": ["hair"]}},
            },
            "output": {"folder": "out"},
        }
    )
    with pytest.raises(ConfigProblem, match="deltah regions name"):
        fingerprint_fields(made)
    found = []
    for names in ({3: "hair"}, {3: "hair", 4: "skin"}, {5: "hair"}):
        write_names(read_regions(str(copy)), names)
        found.append(fingerprint_fields(made))
    assert found[0] == found[1] != found[2]
    assert found[2]["segment"]["providers"]["parts"]["clusters"] == {"hair": [3, 5]}
    assert str(tmp_path) not in str(found[2])


def test_regions_of_other_weights_are_refused(
    learned: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    made = RunConfig.model_validate(
        {
            "input": {"shards": ["x.tar"]},
            "model": {"checkpoint": str(tiny_checkpoint)},
            "segment": {
                "providers": {"parts": {"kind": "automatic", "path": str(learned)}},
                "regions": {"one": {"from": "parts", "labels": [1]}},
            },
            "output": {"folder": str(tmp_path)},
        }
    )
    with pytest.raises(ConfigProblem, match="learned with this run's weights"):
        fingerprint_fields(made)


def test_the_sheet_shows_every_region(learned: Path) -> None:
    sheet = write_region_sheet(str(learned), 4)
    assert [part.number for part in sheet.parts] == list(range(16))
    assert abs(sum(part.share for part in sheet.parts) - 1) < 1e-5
    with Image.open(sheet.path) as image:
        assert image.width > 900
        assert len(set(np.asarray(image).reshape(-1, 3)[::97].tobytes())) > 50
    report = Path(write_report(str(learned))).read_text()
    assert 'src="../regions/regions.png"' in report
    assert "cannot be read" not in report


def test_too_few_points_leave_no_regions_and_say_why(faces: str, tmp_path: Path) -> None:
    made = config_of(faces.replace("*", "faces-00000"), tmp_path / "run")
    made = made.model_copy(
        update={
            "region_model": made.region_model.model_copy(
                update={"pixels": 1, "clusters": 16, "coreset": 32}
            )
        }
    )
    outcome = run(made, console=Console(quiet=True))
    assert outcome.exit_code == 1
    assert "nothing could be learned" in outcome.sentence
    assert "; no regions:\n  expected at least 16" in outcome.sentence
    assert not (tmp_path / "run/merged").exists()
    assert "No regions could be learned" in (tmp_path / "run/README.md").read_text()
    notes = " ".join(verify(RunFolder(str(tmp_path / "run"))).notes)
    assert "no regions: expected at least 16 different points for 16 clusters, got 12" in notes
    with pytest.raises(ConfigProblem, match="found none"):
        read_regions(str(tmp_path / "run"))


def test_latents_are_refused(faces: str, tmp_path: Path) -> None:
    made = config_of(faces, tmp_path).model_dump(mode="json")
    made["output"]["latents"] = "float32"
    with pytest.raises(ValueError, match="region_model inverts nothing"):
        RunConfig.model_validate(made)
