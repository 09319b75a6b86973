"""Probes of real runs of every kind: what they measure, what they leave, what they refuse."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from lib.ledger.commit_record import read_commit
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.plan import make_plan
from pipelines.probe import Probe, ProbeProgress, probe
from pipelines.probe_input import probe_input
from pipelines.run_claim import run_claim

pytestmark = pytest.mark.timeout(120)
PICTURES = 12
BROKEN = 1
"""The picture of the shard that is none."""
KINDS: dict[str, dict[str, Any]] = {
    "edits": {},
    "edits that store latents": {"output": {"latents": "float16"}},
    "sdedit": {
        "discover": {"method": "none"},
        "edit": {"method": "sdedit", "sdedit": {"timesteps": [500]}},
    },
    "directions": {"pipeline": "direction_library"},
    "pca": {
        "pipeline": "direction_library",
        "discover": {"method": "pca", "components": 1, "sketch_rank": 4},
    },
    "labels": {
        "pipeline": "direction_library",
        "discover": {"method": "supervised", "labels": {"a": {"field": "a"}}, "examples": 4},
    },
    "latents": {"pipeline": "store_latents", "output": {"latents": "float32"}},
    "regions": {
        "pipeline": "region_model",
        "region_model": {"clusters": 2, "coreset": 8, "timesteps": [300]},
    },
}
RESULTS = {
    "images": "image",
    "directions": "directions",
    "latents": "latents",
}
"""Folder -> what the sizes of its files are called in a commit."""


@pytest.fixture(scope="module")
def shard(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with a label; one is broken."""
    members = []
    for number in range(PICTURES):
        ((name, data),) = shards.sample(f"picture-{number:03d}", number)
        label = json.dumps({"a": number % 2}).encode()
        members += [(name, b"no image" if number == BROKEN else data)]
        members.append((name.replace(".png", ".json"), label))
    found: Path = shards.write_tar(tmp_path_factory.mktemp("probed") / "in.tar", members)
    return found


@pytest.fixture
def empty_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made in this test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def config_of(
    shards: ModuleType, checkpoint: Path, shard: Path | str, folder: Path, kind: str, **more: Any
) -> RunConfig:
    values = shards.config(checkpoint, shard, folder).model_dump(mode="json")
    for name, section in (KINDS[kind] | more).items():
        replaced = name == "discover" or not isinstance(section, dict)
        values[name] = section if replaced else values[name] | section
    return RunConfig.model_validate(values)


def probed(made: RunConfig, images: int = 4, progress: ProbeProgress | None = None) -> Probe:
    inputs = expand_inputs(made.input.shards)
    return probe(made, run_claim(made), inputs, images, progress or ProbeProgress())


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_runs_the_whole_pipeline_and_leaves_nothing(
    tiny_checkpoint: Path,
    shards: ModuleType,
    shard: Path,
    tmp_path: Path,
    empty_temp: Path,
    kind: str,
) -> None:
    made = config_of(shards, tiny_checkpoint, shard, tmp_path / "run", kind)
    progress = ProbeProgress()
    found = probed(made, 7, progress)
    assert list(empty_temp.iterdir()) == []
    assert not (tmp_path / "run").exists()
    # Seven samples in batches of four, of which the second is no image; the first batch ran twice.
    assert (found.images, found.failed, found.batch, found.run_batch) == (6, 1, 4, 4)
    assert progress.steps() == pytest.approx(progress.expected, rel=0.2)
    assert found.model_s > 0
    assert found.first_batch_s > 0
    assert found.start_s > 0
    assert found.peak_bytes > 10**8
    assert (found.on_gpu, found.peak_device_bytes) == (False, None)
    assert found.device.endswith(", 1 thread")
    assert 0 < found.decode_cpu_s < found.cpu_s
    assert found.start_cpu_s > 0
    assert found.encode_cpu_s > 0 or kind not in ("edits", "sdedit")
    assert found.cost.measured.startswith("by a probe of 6 images of in, on ")

    folder, (report,) = shards.work(made, [shard])
    record = read_commit(folder.commit_url("in"))
    assert report.n_ok == PICTURES - 1
    sizes = found.output.sizes(
        make_plan(made, expand_inputs(made.input.shards)).output, 1, report.n_ok
    )
    padding = 6000  # tars are padded to 10240 bytes
    for name, prefix in RESULTS.items():
        true = getattr(record, f"{prefix}_bytes")
        assert getattr(sizes, name) == pytest.approx(true, rel=0.05, abs=padding), name
    # Four rows of h are foretold for pca, of which the mean is a fifth.
    assert sizes.statistics == pytest.approx(record.statistics_bytes, rel=0.21)
    commit = Path(folder.commit_url("in")).stat().st_size
    assert sizes.commits == pytest.approx(commit, rel=0.1)


def test_a_run_from_stored_latents_is_probed_without_inverting(
    tiny_checkpoint: Path, shards: ModuleType, shard: Path, tmp_path: Path, empty_temp: Path
) -> None:
    stored = config_of(
        shards, tiny_checkpoint, shard, tmp_path / "stored", "edits", output={"latents": "float32"}
    )
    shards.work(stored, [shard])
    before = shards.files(tmp_path / "stored")
    made = config_of(
        shards,
        tiny_checkpoint,
        shard,
        tmp_path / "run",
        "edits",
        invert={"latents": str(tmp_path / "stored")},
    )
    found = probed(made, 4)
    assert (found.images, found.failed) == (3, 1)
    assert list(empty_temp.iterdir()) == []
    assert shards.files(tmp_path / "stored") == before
    shards.write_tar(shard.parent / "other" / "in.tar", shards.samples(2))
    other = made.model_copy(
        update={
            "input": made.input.model_copy(
                update={"shards": (str(shard.parent / "other" / "in.tar"),)}
            )
        }
    )
    with pytest.raises(ConfigProblem, match=r"invert\.latents: shard in has the sha256"):
        probed(other)


def test_the_first_shard_that_can_be_read_is_probed(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shards.write_tar(tmp_path / "b.tar", shards.samples(3))
    (tmp_path / "a.tar").write_bytes(b"damaged")
    made = shards.config(tiny_checkpoint, tmp_path / "*.tar", tmp_path / "run")
    found = probe_input(made, expand_inputs(made.input.shards), 2)
    assert (found.shard, [sample.index for sample in found.samples]) == ("b", [0, 1])


def test_without_a_readable_shard_the_first_reason_is_told(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, empty_temp: Path
) -> None:
    (tmp_path / "a.tar").write_bytes(b"damaged" * 200)
    made = shards.config(tiny_checkpoint, f"{tmp_path}/{{a,b}}.tar", tmp_path / "run")
    text = r"--probe: expected a shard that can be read among the first 2, found none; the first:"
    with pytest.raises(ConfigProblem, match=re.escape(text)):
        probed(made)
    assert list(empty_temp.iterdir()) == []


def test_images_none_of_which_comes_through_are_refused_with_the_reason(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, empty_temp: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(2))
    made = config_of(
        shards, tiny_checkpoint, shard, tmp_path / "run", "edits",
        segment={"regions": {"part": {"file": "part.png"}}},
    )  # fmt: skip
    with pytest.raises(ConfigProblem, match=r"none of the first 2 of shard in.* segment: .*part"):
        probed(made)
    assert list(empty_temp.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(
    tiny_checkpoint: Path, shards: ModuleType, shard: Path, tmp_path: Path, empty_temp: Path
) -> None:
    made = config_of(
        shards, tiny_checkpoint, shard, tmp_path / "run", "edits", execution={"device": "cuda"}
    )
    with pytest.raises(ConfigProblem, match="expected a CUDA device, but torch sees none here"):
        probed(made)
    assert list(empty_temp.iterdir()) == []


def test_a_device_too_small_is_told_in_a_sentence(
    tiny_checkpoint: Path,
    shards: ModuleType,
    shard: Path,
    tmp_path: Path,
    empty_temp: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def exhausted(*_: object) -> None:  # no device here can be filled
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr("pipelines.edit_dataset.EditDataset.__call__", exhausted)
    made = config_of(shards, tiny_checkpoint, shard, tmp_path / "run", "edits")
    with pytest.raises(
        ConfigProblem, match=r"memory does not suffice: .* room for the model and one image"
    ):
        probed(made)
    assert list(empty_temp.iterdir()) == []
