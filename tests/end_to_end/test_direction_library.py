"""Runs that edit nothing: what they leave is the same however the work is done, and what was
learned from all images is what one pass over them gives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.decomposition import PCA

from cluster.runner import run
from cluster.scheduling.orders import Rules
from cluster.settlement import Outcome
from lib.direction import Direction
from lib.directions.direction_table import from_table
from lib.files.samples import read_shard
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import read_index
from lib.ledger.verification import verify
from pipelines.config import RunConfig
from pipelines.engine import load_free_engine
from pipelines.library_stages import LearningStages, build_learning_stages
from pipelines.reading import SampleReader
from pipelines.report.page import write_report

SHARDS, PICTURES, BAD = 3, 4, (1, 2)
"""Sample 2 of shard 1 is no image."""
METHODS: dict[str, dict[str, Any]] = {
    "pca": {"method": "pca", "components": 3, "timesteps": [500, 300]},
    "supervised": {
        "method": "supervised",
        "labels": {name: {"field": name} for name in ("size", "round", "same", "absent")},
        "examples": 3,
        "timesteps": [500, 300],
    },
}
MakeConfig = Callable[..., RunConfig]


def labels(shard: int, index: int) -> dict[str, Any] | None:
    """`size` is missing for one sample of every shard, `round` has two classes, `same` one."""
    if (shard, index) == (0, 3):
        return None
    size: Any = "large" if index == 1 else float(np.sin(10 * shard + index))
    return {"size": size, "round": (shard + index) % 3 == 0, "same": 1}


@pytest.fixture(scope="module")
def inputs(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("library") / "in"
    for shard in range(SHARDS):
        members = []
        for index in range(PICTURES):
            key, picture = f"p{index}", shards.encoded(shards.picture(100 * shard + index))
            members.append((f"{key}.png", b"words" if (shard, index) == BAD else picture))
            if (found := labels(shard, index)) is not None:
                members.append((f"{key}.json", json.dumps(found).encode()))
        shards.write_tar(folder / f"in-{shard}.tar", members)
    return str(folder / "in-*.tar")


def config_of(
    shards: ModuleType, checkpoint: Path, inputs: str, folder: Path, discover: dict[str, Any],
    **execution: Any,
) -> RunConfig:  # fmt: skip
    made = shards.config(checkpoint, inputs, folder).model_dump(mode="json")
    made |= {"pipeline": "direction_library", "discover": discover}
    made["invert"]["batch_size"] = 2
    made["output"]["vector_dtype"] = "float32"
    made["execution"] |= execution
    return RunConfig.model_validate(made)


@pytest.fixture(params=sorted(METHODS))
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(
    tiny_checkpoint: Path, shards: ModuleType, inputs: str, tmp_path: Path, method: str
) -> MakeConfig:
    def make(**execution: Any) -> RunConfig:
        folder = tmp_path / "run"
        return config_of(shards, tiny_checkpoint, inputs, folder, METHODS[method], **execution)

    return make


def drive(made: RunConfig) -> Outcome:
    """Run to the end, and prove it."""
    rules = Rules(workers=made.execution.workers, retry_pause_s=0.05)
    outcome = run(made, console=Console(quiet=True), rules=rules)
    assert (outcome.exit_code, outcome.done) == (0, SHARDS), outcome.sentence
    assert verify(RunFolder(made.output.folder), deep=True).problems == ()
    return outcome


@pytest.fixture(scope="module")
def finished(
    tiny_checkpoint: Path,
    shards: ModuleType,
    inputs: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Path]:
    """Method -> a run in this process that nothing disturbs."""
    folders = {}
    for name, discover in METHODS.items():
        folders[name] = tmp_path_factory.mktemp(name) / "run"
        drive(config_of(shards, tiny_checkpoint, inputs, folders[name], discover))
    return folders


def directions_of(folder: Path) -> list[Direction]:
    return list(from_table(pq.read_table(folder / "merged" / "directions.parquet")))


def test_exactly_these_files_are_left(
    finished: dict[str, Path], shards: ModuleType, method: str
) -> None:
    files = shards.files(finished[method])
    names = {name.split("-")[0] for name in files if not name.startswith(("events/", "drivers/"))}
    assert names == {
        "run.json", "inputs.json", "model.json", "index.json", "README.md", "commit/in",
        "statistics/in", "errors/in", "manifest/samples", "manifest/errors",
        "merged/directions.parquet",
    }  # fmt: skip
    assert len(list((finished[method] / "statistics").iterdir())) == SHARDS
    rows = pq.read_table(finished[method] / "manifest" / "samples-00000.parquet").to_pylist()
    places = [(row["shard"], row["index"]) for row in rows]
    assert places == [
        (f"in-{s}", i) for s in range(SHARDS) for i in range(PICTURES) if (s, i) != BAD
    ]
    assert {row["directions"] for row in rows} == {0}


def test_a_run_that_was_killed_and_resumed_leaves_the_same_bytes(
    make: MakeConfig, finished: dict[str, Path], shards: ModuleType, tmp_path: Path, method: str
) -> None:
    config = shards.write_config(tmp_path / "run.yaml", make())
    process = subprocess.Popen(
        shards.command("run", config),
        env=shards.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = RunFolder(str(tmp_path / "run"))
    deadline = time.monotonic() + 100
    while not folder.committed() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert folder.committed(), "it had begun"
    drive(make())
    assert shards.hashes(tmp_path / "run") == shards.hashes(finished[method])


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    from cluster.pools.ray_session import Resources, ray_session

    with ray_session("local", 2, Resources(gpus=0.0, threads=1)):
        yield


@pytest.mark.ray
@pytest.mark.timeout(180)
def test_two_workers_on_ray_leave_the_same_bytes(
    make: MakeConfig,
    finished: dict[str, Path],
    shards: ModuleType,
    tmp_path: Path,
    method: str,
    ray_here: None,
) -> None:
    drive(make(engine="ray", workers=2))
    assert shards.hashes(tmp_path / "run") == shards.hashes(finished[method])


def observations(made: RunConfig, inputs: str) -> tuple[np.ndarray, list[dict[str, float]]]:
    """h of all images of all shards in memory, (N, S * D) float64, and their labels."""
    assert made.discover.method in ("pca", "supervised")
    stages: LearningStages = build_learning_stages(
        made, made.discover, load_free_engine(made)  # type: ignore[arg-type]
    )  # fmt: skip
    rows, scores = [], []
    with ThreadPoolExecutor(1) as pool:
        for path in sorted(Path(inputs).parent.glob("*.tar")):
            contents = read_shard(path.read_bytes(), path.stem, max_bytes=10**9, salvage=False)
            reader = SampleReader(
                made.input, image_size=16, claimed=frozenset(), fingerprint="", pool=pool, ahead=4
            )
            samples = reader(contents.samples, lambda failure: None)
            for item in stages.observe(stages.invert.inverter(samples, _never), _never):
                rows.append(item.h_SCYX.double().numpy().ravel())
                place = (int(item.sample.shard[3:]), item.sample.index)
                scores.append(labels(*place) or {})
    return np.stack(rows), scores


def _never(failure: object) -> None:
    raise AssertionError(failure)


def unit_steps(direction: np.ndarray, steps: int) -> np.ndarray:
    by_step = direction.reshape(steps, -1)
    return by_step / np.linalg.norm(by_step, axis=1, keepdims=True)


def test_components_are_those_of_one_pass_over_all_images(
    finished: dict[str, Path], tiny_checkpoint: Path, shards: ModuleType, inputs: str
) -> None:
    made = config_of(shards, tiny_checkpoint, inputs, finished["pca"], METHODS["pca"])
    h_ND, _ = observations(made, inputs)
    expected = PCA(n_components=3, svd_solver="full").fit(h_ND)
    found = directions_of(finished["pca"])
    assert [d.rank for d in found] == [0, 1, 2]
    for direction, v_D, variance in zip(
        found, expected.components_, expected.explained_variance_, strict=True
    ):
        steps = unit_steps(direction.vector_SCYX.numpy().astype(np.float64), 2)
        cosines = (steps * unit_steps(v_D, 2)).sum(axis=1)
        assert abs(cosines).min() > 1 - 1e-5
        assert cosines[0] * cosines[1] > 0, "the steps keep their signs to each other"
        assert direction.singular_value == pytest.approx(np.sqrt(variance), rel=1e-5)
        assert (direction.shard, direction.region, direction.support) == (None, "image", len(h_ND))
        assert direction.timesteps == (499, 332)
        assert direction.parameters["discarded_energy"] == 0


def test_label_directions_are_differences_of_means_and_say_who_was_missing(
    finished: dict[str, Path], tiny_checkpoint: Path, shards: ModuleType, inputs: str
) -> None:
    made = config_of(shards, tiny_checkpoint, inputs, finished["supervised"], METHODS["supervised"])
    h_ND, scores = observations(made, inputs)
    found = {d.label: d for d in directions_of(finished["supervised"])}
    assert set(found) == {"round", "size"}
    size = np.array([s["size"] if isinstance(s.get("size"), float) else np.nan for s in scores])
    order = np.argsort(size)[: int((~np.isnan(size)).sum())]
    difference_D = h_ND[order[-3:]].mean(0) - h_ND[order[:3]].mean(0)
    expected = unit_steps(difference_D, 2)
    got = found["size"].vector_SCYX.numpy().reshape(2, -1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)
    assert found["size"].singular_value == pytest.approx(np.linalg.norm(difference_D), rel=1e-5)
    missing = int(np.isnan(size).sum())
    assert found["size"].parameters["missing"] == missing == 4
    assert found["size"].parameters["labelled"] == len(size) - missing


def test_labels_of_one_class_or_none_are_named_and_the_others_are_made(
    finished: dict[str, Path], tiny_checkpoint: Path, shards: ModuleType, inputs: str
) -> None:
    index = read_index(RunFolder(str(finished["supervised"])))
    assert index is not None
    assert set(index["left_out"]) == {"same", "absent"}
    assert "one class only" in index["left_out"]["same"]
    assert "there are 0" in index["left_out"]["absent"]
    made = config_of(shards, tiny_checkpoint, inputs, finished["supervised"], METHODS["supervised"])
    outcome = drive(made)
    assert "no direction of absent, same:" in outcome.sentence
    card = (finished["supervised"] / "README.md").read_text()
    assert "one class only" in card


def test_a_run_that_can_learn_nothing_fails_and_says_why(
    tiny_checkpoint: Path, shards: ModuleType, inputs: str, tmp_path: Path
) -> None:
    discover = METHODS["supervised"] | {"labels": {"same": {"field": "same"}}}
    made = config_of(shards, tiny_checkpoint, inputs, tmp_path / "run", discover)
    outcome = run(made, console=Console(quiet=True))
    assert outcome.exit_code == 1
    assert "nothing could be learned" in outcome.sentence
    assert "label same:" in outcome.sentence
    assert not (tmp_path / "run" / "merged").exists()


def test_what_was_learned_can_be_applied_and_has_a_report(
    finished: dict[str, Path],
    tiny_checkpoint: Path,
    shards: ModuleType,
    inputs: str,
    tmp_path: Path,
) -> None:
    library = {"method": "library", "path": str(finished["supervised"])}
    shard = sorted(Path(inputs).parent.glob("*.tar"))[0]
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", discover=library)
    folder, (report,) = shards.work(made, [shard])
    rows = pq.read_table(folder.commit_url(shard.stem)).to_pylist()
    assert {row["direction"] for row in rows} == {
        d.id for d in directions_of(finished["supervised"])
    }
    assert report.n_edits == PICTURES * 2 * 2
    page = Path(write_report(str(finished["supervised"]))).read_text()
    assert "one class only" in page


def test_directions_of_every_image_without_an_edit(
    tiny_checkpoint: Path, shards: ModuleType, inputs: str, tmp_path: Path
) -> None:
    """The same directions as a run that edits with them, up to the seeds of the iteration."""
    discover = {"method": "jacobian", "directions": 1, "tolerance": 0.001, "chunk": 4}
    made = config_of(shards, tiny_checkpoint, inputs, tmp_path / "run", discover)
    drive(made)
    edited = made.model_dump(mode="json") | {"pipeline": "edit_dataset"}
    edited["output"]["folder"] = str(tmp_path / "edited")
    edited["edit"]["window"] = [500, 300]
    drive(RunConfig.model_validate(edited))
    found: list[list[Direction]] = []
    for name in ("run", "edited"):
        paths = sorted((tmp_path / name / "directions").iterdir())
        found.append([d for path in paths for d in from_table(pq.read_table(path))])
    assert len(found[0]) == SHARDS * PICTURES - 1
    for one, other in zip(*found, strict=True):
        assert (one.shard, one.index, one.region) == (other.shard, other.index, other.region)
        assert float((one.vector_SCYX * other.vector_SCYX).sum()) > 0.999
    assert not (tmp_path / "run" / "images").exists()
    rows = pq.read_table(tmp_path / "run" / "manifest" / "samples-00000.parquet").to_pylist()
    assert {row["directions"] for row in rows} == {1}
    assert all(row["jvp_count"] > 0 < row["vjp_count"] for row in rows)
    assert "Editing directions" in (tmp_path / "run" / "README.md").read_text()
