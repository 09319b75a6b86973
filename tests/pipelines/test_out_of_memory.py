"""A device too small for the configured batches: the shard is done again with smaller ones, and
comes out as it would have. The networks are real; only their refusal of large batches is made.
"""

from __future__ import annotations

import gc
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import UNet2DModel
from rich.console import Console

from cluster.runner import run
from cluster.scheduling.orders import Rules
from cluster.scheduling.verdicts import describe
from lib.files import latent_files
from lib.ledger.commit_record import read_commit
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.out_of_memory import MemoryExhaustedError, is_out_of_memory
from lib.receipts import ShardReport, ShardTask
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.flows import load_flow
from pipelines.shard_flow import Flow
from pipelines.worker import ShardWorker
from pipelines.worker_flow import FlowMaker

pytestmark = pytest.mark.timeout(120)

SHARDS, PICTURES = 3, 7
NAMES = [f"in-{number}" for number in range(SHARDS)]
ROWS = 3
"""Images that the small device holds; an edit batch of 2 is 3 with its reconstruction."""


@dataclass
class Device:
    """How many images at once its memory holds."""

    rows: int | None = None
    refusals: int = 0


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """What every network of this process runs on; large until `rows` is set."""
    found, forward = Device(), UNet2DModel.forward

    def limited(self: UNet2DModel, sample: torch.Tensor, *rest: Any, **more: Any) -> Any:
        if found.rows is not None and len(sample) > found.rows:
            found.refusals += 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, sample, *rest, **more)

    monkeypatch.setattr(UNet2DModel, "forward", limited)
    return found


@pytest.fixture(scope="module")
def inputs(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("memory") / "in"
    for number, name in enumerate(NAMES):
        members = []
        for key, data in shards.samples(PICTURES, first=100 * number):
            stem = key.removesuffix(".png")
            members += [(key, data), (f"{stem}.json", json.dumps({"size": len(data)}).encode())]
        members[10] = (members[10][0], b"no picture")  # sample 5
        shards.write_tar(folder / f"{name}.tar", members)
    return folder


@pytest.fixture
def make(tiny_checkpoint: Path, shards: ModuleType, inputs: Path) -> Any:
    def make(folder: Path, pipeline: str = "edit_dataset", **sections: Any) -> RunConfig:
        whole = {"pipeline": pipeline}
        if pipeline == "direction_library" and "discover" in sections:
            whole["discover"] = sections.pop("discover")
        sections = {"edit": {"strengths": [-0.2, -0.1, 0.1, 0.2], "batch_size": 4}} | sections
        made = shards.config(tiny_checkpoint, inputs / "*.tar", folder, **sections)
        return RunConfig.model_validate(made.model_dump(mode="json") | whole)

    return make


def worker_of(
    made: RunConfig, shards: ModuleType, inputs: Path, load: Any = load_flow
) -> ShardWorker:
    _, fingerprint = shards.claimed(made, {n: str(inputs / f"{n}.tar") for n in NAMES})
    return ShardWorker(made.model_dump_json(), fingerprint, load)


def all_shards(worker: ShardWorker, inputs: Path) -> list[ShardReport]:
    """Two at once, as every pool lets them be done."""
    with ThreadPoolExecutor(2) as threads:
        tasks = [ShardTask(name, str(inputs / f"{name}.tar"), 1) for name in NAMES]
        return list(threads.map(worker.run, tasks))


def records(folder: Path) -> list[int | None]:
    run_folder = RunFolder(str(folder))
    assert verify(run_folder, deep=True).problems == ()
    return [read_commit(run_folder.commit_url(name)).oom_batch for name in NAMES]


class Watched:
    """Loads flows as workers do, and looks at what else lives whenever one is made."""

    def __init__(self) -> None:
        self.made: WeakSet[Flow] = WeakSet()
        self.alive: list[int] = []
        self.networks: list[int] = []

    def load(self, config: RunConfig, folder: RunFolder, backlog: Backlog) -> FlowMaker:
        before = networks()
        make = load_flow(config, folder, backlog)

        def watched(config: RunConfig) -> Flow:
            self.alive.append(len(self.made))
            flow = make(config)
            self.made.add(flow)
            self.networks.append(networks() - before)
            return flow

        return watched


def networks() -> int:
    gc.collect()
    return sum(type(found) is UNet2DModel for found in gc.get_objects())


def test_pixels_agree_with_the_full_batch_while_another_shard_is_in_flight(
    device: Device, make: Any, shards: ModuleType, inputs: Path, tmp_path: Path
) -> None:
    full = all_shards(worker_of(make(tmp_path / "full"), shards, inputs), inputs)
    assert [r.oom_batch for r in full] == records(tmp_path / "full") == [None] * SHARDS
    watched = Watched()
    worker = worker_of(make(tmp_path / "small"), shards, inputs, watched.load)
    device.rows = ROWS
    small = all_shards(worker, inputs)
    assert device.refusals == 1, "later shards, also the one that waited, begin with less"
    assert watched.alive == [0, 0], "the stages of before have gone"
    assert watched.networks == [1, 1], "the network was not loaded again"
    assert [r.oom_batch for r in small] == records(tmp_path / "small") == [2] * SHARDS
    assert [(r.n_ok, r.n_err, r.n_edits) for r in small] == [(6, 1, 24)] * SHARDS
    assert worker.images_done() > 0
    usual, other = shards.images(tmp_path / "full"), shards.images(tmp_path / "small")
    assert usual.keys() == other.keys()
    assert len(usual) == SHARDS * 6 * 4
    assert max(int(np.abs(usual[name] - other[name]).max()) for name in usual) <= 1
    errors = [next((tmp_path / f / "errors").glob("in-1*")) for f in ("full", "small")]
    assert pq.read_table(errors[0]).equals(pq.read_table(errors[1])), "each error stands there once"


SDEDIT = {
    "discover": {"method": "none"},
    "edit": {"method": "sdedit", "sdedit": {"timesteps": [700, 300], "seeds": 2}, "batch_size": 4},
}
PIPELINES: dict[str, dict[str, Any]] = {
    "sdedit": SDEDIT,
    "directions": {"pipeline": "direction_library"},
    "pca": {"pipeline": "direction_library", "discover": {"method": "pca", "timesteps": [500]}},
    "supervised": {
        "pipeline": "direction_library",
        "discover": {"method": "supervised", "labels": {"size": {"field": "size"}}},
    },
    "latents": {"pipeline": "store_latents"},
    "regions": {"pipeline": "region_model"},
}


@pytest.mark.parametrize("kind", PIPELINES)
def test_every_pipeline_gets_along_with_less(
    device: Device, make: Any, shards: ModuleType, inputs: Path, tmp_path: Path, kind: str
) -> None:
    runs = {}
    for name, rows in (("full", None), ("small", ROWS)):
        folder = tmp_path / name
        options = dict(PIPELINES[kind])
        if kind == "latents":
            options["output"] = {"folder": str(folder), "latents": "float32"}
        worker = worker_of(make(folder, **options), shards, inputs)
        device.rows = rows
        runs[name] = all_shards(worker, inputs)
        device.rows = None
        assert records(folder) == [None if rows is None else 2] * SHARDS
    assert device.refusals == 1
    assert [(r.n_ok, r.n_err, r.n_edits, r.n_directions) for r in runs["small"]] == [
        (r.n_ok, r.n_err, r.n_edits, r.n_directions) for r in runs["full"]
    ]
    if kind == "sdedit":
        usual, other = shards.images(tmp_path / "full"), shards.images(tmp_path / "small")
        assert max(int(np.abs(usual[name] - other[name]).max()) for name in usual) <= 1
    if kind == "latents":
        for name in NAMES:
            one, two = (
                latent_files.decode(
                    next((tmp_path / f / "latents").glob(f"{name}*")).read_bytes(), ""
                )
                for f in ("full", "small")
            )
            np.testing.assert_array_equal(one.image_sha256_N, two.image_sha256_N)
            np.testing.assert_allclose(one.states_NSLYX, two.states_NSLYX, atol=1e-4)
    if kind == "directions":
        for name in NAMES:
            one, two = (
                pq.read_table(next((tmp_path / f / "directions").glob(f"{name}*")))["vector"]
                .combine_chunks()
                .to_numpy_ndarray()
                .reshape(6, -1)
                .astype(np.float64)
                for f in ("full", "small")
            )
            assert np.abs((one * two).sum(1)).min() > 0.99


def test_a_shard_that_fits_with_no_batch_leaves_the_worker_fit_for_the_next_ones(
    device: Device, make: Any, shards: ModuleType, inputs: Path, tmp_path: Path
) -> None:
    worker = worker_of(make(tmp_path / "run"), shards, inputs)
    device.rows = 0
    first, *others = (ShardTask(name, str(inputs / f"{name}.tar"), 1) for name in NAMES)
    with pytest.raises(MemoryExhaustedError, match=r"batches of one: CUDA out of memory\. Tried"):
        worker.run(first)
    assert device.refusals == 3, "at 4, 2 and 1"
    device.rows = 2
    assert [worker.run(task).oom_batch for task in others] == [1, 1]


def test_a_run_gives_such_a_shard_up_with_the_memory_as_the_reason(
    device: Device, make: Any, tmp_path: Path
) -> None:
    def worker(config_json: str, fingerprint: str) -> ShardWorker:
        made = ShardWorker(config_json, fingerprint)
        device.rows = 0
        return made

    rules = Rules(workers=1, max_attempts=2, retry_pause_s=0.01)
    outcome = run(make(tmp_path / "run"), factory=worker, console=Console(quiet=True), rules=rules)
    assert (outcome.exit_code, outcome.quarantined) == (3, SHARDS)
    for reason in RunFolder(str(tmp_path / "run")).quarantined().values():
        assert reason.startswith("MemoryExhaustedError: out of memory even with batches of one")


@pytest.fixture
def refused() -> BaseException:
    """What torch's own allocator says on a CPU."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**14)
    return caught.value


def test_errors_of_all_allocators_are_known_and_none_breaks_the_worker(
    refused: BaseException,
) -> None:
    accelerator = getattr(torch, "AcceleratorError", RuntimeError)
    for error in (
        refused,
        torch.OutOfMemoryError("HIP ran out"),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.93 GiB total)"),
        accelerator("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError("Unable to allocate 7.11 PiB for an array"),
    ):
        assert is_out_of_memory(error), error
        assert describe(error).verdict == "retry", error
    for error in (
        accelerator("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered"),
    ):
        assert not is_out_of_memory(error), error
        assert describe(error).verdict == "worker_broken", error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device_that_is_too_small_makes_the_same_pixels(
    shards: ModuleType, tmp_path: Path
) -> None:
    """The embedded model on 64 images at once; then with two thirds of the memory that took."""
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(64))

    def edit(name: str) -> list[ShardReport]:
        made = shards.config(
            "embedded", shard, tmp_path / name,
            invert={"refinements": 0, "batch_size": 64},
            execution={"engine": "local", "device": "cuda"},
        )  # fmt: skip
        found: list[ShardReport] = shards.work(made, [shard])[1]
        return found

    torch.cuda.reset_peak_memory_stats()
    (full,) = edit("full")
    assert full.oom_batch is None
    held = torch.cuda.max_memory_reserved()
    total = torch.cuda.get_device_properties(0).total_memory
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(held * 2 / 3 / total)
    try:
        (small,) = edit("small")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert small.oom_batch is not None
    usual, other = shards.images(tmp_path / "full"), shards.images(tmp_path / "small")
    assert max(int(np.abs(usual[name] - other[name]).max()) for name in usual) <= 1
