"""A run of every method: the directions are read back from Parquet, and finite differences of the
network say whether each does what its row says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import sqrt
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from rich.console import Console
from torch import Tensor

from cluster.runner import run
from cluster.scheduling.orders import Rules
from lib.denoiser import Denoiser
from lib.direction import WHOLE, Direction
from lib.directions.direction_table import from_table, to_table
from lib.files.samples import read_shard
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.models.text_image import load_text_image
from lib.problems import ConfigProblem
from lib.records import Inverted
from lib.sampling.grid import make_grid
from pipelines.config import RunConfig
from pipelines.engine import load_free_engine
from pipelines.library_stages import build_finding_stages
from pipelines.reading import SampleReader

T, ALPHA_NODE = 332, 2
"""The grid's timestep nearest to 368, and its node."""
REGIONS = {"left": {"box": [0, 0, 0.5, 1]}, "top": {"box": [0.25, 0, 1, 0.5]}}
RANKS = {"factor_rank": 6, "individual_rank": 3, "directions": 2}
VARIANTS: dict[str, dict[str, Any]] = {
    "jacobian": {"method": "jacobian", "directions": 2},
    "jacobian of x": {"method": "jacobian", "directions": 1, "space": "x"},
    "localised": {"method": "localised", "directions": 2},
    "localised of x": {"method": "localised", "directions": 1, "space": "x"},
    "null space": {"method": "null_space", "directions": 2, "null_rank": 3},
    "null space of x": {"method": "null_space", "directions": 1, "null_rank": 1, "space": "x"},
    "jive": {"method": "jive", "joint_rank": 1} | RANKS,
    "ajive": {"method": "ajive", "joint_rank": 1} | RANKS,
    "pullback": {"method": "pullback", "directions": 3},
    "pullback of h": {"method": "pullback", "directions": 3, "space": "h"},
    "text": {"method": "text", "source": "face", "target": "smile face", "null_rank": 2},
}


@dataclass(frozen=True)
class World:
    """Two pictures, the model, and x_t of both."""

    checkpoint: Path
    shard: Path
    clip: Path
    denoiser: Denoiser
    x_BLYX: Tensor
    alpha: float


@pytest.fixture(scope="module")
def world(
    tiny_checkpoint: Path,
    shards: ModuleType,
    clip: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    root = tmp_path_factory.mktemp("methods")
    shard = shards.write_tar(root / "in" / "in.tar", shards.samples(2))
    made = shards.config(tiny_checkpoint, shard, root / "never")
    stages = build_finding_stages(made, load_free_engine(made))
    contents = read_shard(shard.read_bytes(), "in", max_bytes=10**9, salvage=False)
    with ThreadPoolExecutor(1) as pool:
        reader = SampleReader(
            made.input, image_size=16, claimed=frozenset(), fingerprint="", pool=pool, ahead=4
        )
        inverted: Iterator[Inverted] = stages.invert.inverter(
            reader(contents.samples, _never), _never
        )
        x_BLYX = torch.stack([one.states_LYX[T] for one in inverted])
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    denoiser = load_denoiser(checkpoint, torch.device("cpu"), "after")
    alpha = make_grid(checkpoint.scheduler_config, 6, "trailing").alphas[ALPHA_NODE]
    return World(tiny_checkpoint, shard, clip, denoiser, x_BLYX, alpha)


def _never(failure: object) -> None:
    raise AssertionError(failure)


def config(
    shards: ModuleType,
    world: World,
    folder: Path,
    discover: dict[str, Any],
    pipeline: str = "direction_library",
) -> RunConfig:
    made = shards.config(
        world.checkpoint, world.shard, folder, segment={"regions": REGIONS}
    ).model_dump(mode="json")
    if discover["method"] == "text":
        discover = discover | {"model": str(world.clip)}
    made["output"]["vector_dtype"] = "float32"
    return RunConfig.model_validate(made | {"discover": discover, "pipeline": pipeline})


Find = Callable[[dict[str, Any]], list[Direction]]


@pytest.fixture(scope="module")
def find(world: World, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Find:
    """Run, prove the folder, and read the directions back; each config once."""
    known: dict[str, list[Direction]] = {}

    def find(discover: dict[str, Any]) -> list[Direction]:
        key = json.dumps(discover, sort_keys=True)
        if key not in known:
            folder = tmp_path_factory.mktemp("found") / "run"
            shards.work(config(shards, world, folder, discover), [world.shard])
            assert verify(RunFolder(str(folder)), deep=True).problems == ()
            known[key] = stored(folder)
        return known[key]

    return find


def stored(folder: Path) -> list[Direction]:
    return [
        d for path in (folder / "directions").iterdir() for d in from_table(pq.read_table(path))
    ]


def mask_of(region: str) -> Tensor:
    mask_HW = torch.zeros(16, 16)
    if region == "left":
        mask_HW[:, :8] = 1
    elif region == "top":
        mask_HW[:8, 4:] = 1
    else:
        assert region == WHOLE
        mask_HW[:] = 1
    return mask_HW


@torch.no_grad()
def response(world: World, direction: Direction, *, of_h: bool = False) -> Tensor:
    """d P_t (or d h) along the direction, by central differences of whole forwards."""
    x_BLYX = world.x_BLYX[direction.index][None]  # type: ignore[index]
    v_BCYX, size = direction.vector_SCYX[:1], 0.03 if direction.space == "x" else 0.3

    def moved(sign: int) -> Tensor:
        shift_BCYX = sign * size * v_BCYX
        at_BLYX = x_BLYX + shift_BCYX if direction.space == "x" else x_BLYX
        if of_h:
            return world.denoiser.bottleneck(at_BLYX, T)
        if direction.space == "x":
            eps_BLYX = world.denoiser.predict(at_BLYX, T)
        else:
            eps_BLYX = world.denoiser.predict_shifted(x_BLYX, T, shift_BCYX)
        return (at_BLYX - sqrt(1 - world.alpha) * eps_BLYX) / sqrt(world.alpha)

    change: Tensor = (moved(1) - moved(-1))[0] / (2 * size)
    return change


@pytest.mark.parametrize("name", [n for n in VARIANTS if "pullback" not in n and n != "text"])
def test_each_direction_moves_its_region_as_strongly_as_its_row_says_and_brightens_it(
    world: World, find: Find, name: str
) -> None:
    found = find(VARIANTS[name])
    count = VARIANTS[name]["directions"]
    places = [(d.index, d.region, d.rank) for d in found]
    assert places == [(i, r, k) for i in (0, 1) for r in REGIONS for k in range(count)]
    space = VARIANTS[name].get("space", "h")
    for d in found:
        change_CHW = response(world, d) * mask_of(d.region)
        assert float(change_CHW.norm()) == pytest.approx(d.singular_value, rel=0.02)
        assert float(change_CHW.sum() / change_CHW.abs().sum()) > -2e-3
        assert (d.method, d.space, d.timesteps) == (VARIANTS[name]["method"], space, (T,))
        assert d.vector_SCYX.shape == ((1, 3, 16, 16) if space == "x" else (1, 32, 8, 8))
        assert d.parameters["products"] == ("forward" if space == "x" else "linearised")
        assert not {"chunk", "timesteps", "space"} & set(d.parameters)


def test_localised_directions_leak_less_than_plain_ones(find: Find, world: World) -> None:
    def leaks(found: list[Direction]) -> dict[tuple[Any, str], float]:
        return {
            (d.index, d.region): float(
                (response(world, d) * (1 - mask_of(d.region))).norm() / d.singular_value
            )
            for d in found
            if d.rank == 0
        }

    plain = leaks(find(VARIANTS["jacobian"]))
    local = leaks(find(VARIANTS["localised"]))
    assert all(local[place] < plain[place] for place in plain)


def test_the_pullback_basis_is_orthonormal_and_moves_h_by_its_values(
    world: World, find: Find
) -> None:
    of_x = find(VARIANTS["pullback"])
    of_h = find(VARIANTS["pullback of h"])
    assert [(d.region, d.rank) for d in of_x] == [(WHOLE, k) for _ in range(2) for k in range(3)]
    for right_d, left_d in zip(of_x, of_h, strict=True):
        change_CYX = response(world, right_d, of_h=True)
        assert float(change_CYX.norm()) == pytest.approx(right_d.singular_value, rel=0.02)
        cosine = float((change_CYX * left_d.vector_SCYX[0]).sum() / change_CYX.norm())
        assert abs(cosine) == pytest.approx(1, abs=0.02)
        assert (right_d.space, left_d.space) == ("x", "h")
    for found in (of_x, of_h):
        V_KD = torch.stack([d.vector_SCYX.flatten() for d in found[:3]])
        torch.testing.assert_close(V_KD @ V_KD.T, torch.eye(3), rtol=0, atol=1e-4)


def test_text_moves_the_prediction_towards_the_target(world: World, find: Find) -> None:
    found = find(VARIANTS["text"])
    judge = load_text_image(str(world.clip), torch.device("cpu"))
    assert [(d.index, d.region) for d in found] == [(i, r) for i in (0, 1) for r in REGIONS]
    for d in found:
        with torch.no_grad():
            x_BLYX = world.x_BLYX[d.index][None]  # type: ignore[index]
            eps_BLYX = world.denoiser.predict(x_BLYX, T)
        predicted_BCHW = (x_BLYX - sqrt(1 - world.alpha) * eps_BLYX) / sqrt(world.alpha)
        wish_CHW = judge.gradient(predicted_BCHW, "face", "smile face")[0] * mask_of(d.region)
        moved = float((response(world, d) * wish_CHW).sum() / wish_CHW.norm())
        assert moved == pytest.approx(d.singular_value, rel=0.02)
        assert moved > 0


def test_several_timesteps_make_one_direction_of_several_steps(find: Find) -> None:
    for method in ("jacobian", "text"):
        found = find(VARIANTS[method] | {"timesteps": [500, 332, 670]})
        assert {d.timesteps for d in found} == {(666, 499, 332)}
        assert {len(d.vector_SCYX) for d in found} == {3}
        if method == "jacobian":
            for d in found:
                steps_SD = d.vector_SCYX.flatten(1)
                assert float((steps_SD[1:] * steps_SD[:-1]).sum(1).min()) > 0


def library(path: Path, directions: list[Direction], **changes: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(to_table([replace(d, **changes) for d in directions], "float32"), path)
    return str(path)


def test_a_carried_direction_moves_h_as_its_parent_does(
    world: World, find: Find, tmp_path: Path
) -> None:
    parents = [d for d in find(VARIANTS["pullback of h"]) if d.index == 0]
    path = library(tmp_path / "lib" / "a.parquet", parents, label="a label")
    discover = VARIANTS["pullback"] | {"transport": path, "directions": 3, "basis": 3}
    found = find(discover)
    assert [d.parents for d in found] == 2 * [(p.id,) for p in parents]
    for d, parent in zip(found, 2 * parents, strict=True):
        change_CYX = response(world, d, of_h=True)
        assert float(change_CYX.norm()) == pytest.approx(d.singular_value, rel=0.02)
        cosine = float((change_CYX * parent.vector_SCYX[0]).sum() / change_CYX.norm())
        # v' = V U^T u: S weighs the parts, so only in the parent's own image is u met exactly.
        assert cosine > (0.97 if d.index == 0 else 0)
        assert (d.space, d.sign_rule, d.label) == ("x", "transported", "a label")
        share = d.parameters["carried"]
        assert share == pytest.approx(1, abs=1e-2) if d.index == 0 else 0 < share < 1


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "f" * 64}, r"of model ffffffffffff, .* this run has model"),
        ({"h_layer": "middle"}, "layer middle"),
        ({"vector_SCYX": torch.ones(1, 16, 4, 4) / 16}, r"h \(16, 4, 4\); .* h \(32, 8, 8\)"),
    ],
    ids=["model", "layer", "shape"],
)
def test_directions_of_another_model_layer_or_shape_are_refused_by_the_name_of_the_option(
    world: World, shards: ModuleType, find: Find, tmp_path: Path, change: Any, sentence: str
) -> None:
    path = library(tmp_path / "lib" / "a.parquet", find(VARIANTS["jacobian"])[:1], **change)
    wanted: dict[str, dict[str, Any]] = {
        "transport": {"method": "pullback", "transport": path},
        "path": {"method": "library", "path": path},
    }
    for option, discover in wanted.items():
        pipeline = "edit_dataset" if option == "path" else "direction_library"
        made = config(shards, world, tmp_path / option, discover, pipeline=pipeline)
        with pytest.raises(ConfigProblem, match=rf"discover\.{option}: .*{sentence}"):
            shards.work(made, [world.shard])
        assert not (tmp_path / option / "directions").exists()


def test_transport_of_directions_of_x_or_into_h_or_from_nowhere_is_refused(
    world: World, shards: ModuleType, find: Find, tmp_path: Path
) -> None:
    path = library(tmp_path / "lib" / "x.parquet", find(VARIANTS["pullback"])[:1])
    made = config(shards, world, tmp_path / "run", {"method": "pullback", "transport": path})
    with pytest.raises(ConfigProblem, match=r"discover\.transport: expected directions of h"):
        shards.work(made, [world.shard])
    with pytest.raises(ValidationError, match="expected space: x"):
        config(
            shards, world, tmp_path / "run",
            {"method": "pullback", "transport": path, "space": "h"},
        )  # fmt: skip
    nowhere = {"method": "pullback", "transport": str(tmp_path / "nowhere")}
    with pytest.raises(ConfigProblem, match=r"discover\.transport: .* found none"):
        shards.work(config(shards, world, tmp_path / "run", nowhere), [world.shard])


@pytest.mark.parametrize("method", ["jive", "ajive"])
def test_ranks_and_regions_that_cannot_serve_are_refused_before_work(
    world: World, shards: ModuleType, tmp_path: Path, method: str
) -> None:
    for change, sentence in (
        ({"directions": 4, "individual_rank": 3}, "no more directions than individual_rank"),
        ({"individual_rank": 30, "factor_rank": 20}, "individual_rank of at most"),
    ):
        with pytest.raises(ValidationError, match=sentence):
            config(shards, world, tmp_path, {"method": method} | change)
    values = config(shards, world, tmp_path, {"method": method}).model_dump(mode="json")
    values["segment"]["regions"] = {"left": {"box": [0, 0, 0.5, 1]}}
    with pytest.raises(ValidationError, match="at least two regions"):
        RunConfig.model_validate(values)


@pytest.mark.parametrize("name", ["jive", "ajive"])
def test_identical_regions_are_error_rows_of_a_run_and_regions_of_the_whole_image_too(
    world: World, shards: ModuleType, tmp_path: Path, name: str
) -> None:
    values = config(shards, world, tmp_path / "run", VARIANTS[name]).model_dump(mode="json")
    values["segment"]["regions"] = {"a": REGIONS["left"], "b": REGIONS["left"]}
    made = RunConfig.model_validate(values)
    outcome = run(made, console=Console(quiet=True), rules=Rules(workers=1))
    assert outcome.exit_code == 0
    assert verify(RunFolder(str(tmp_path / "run")), deep=True).problems == ()
    (path,) = (tmp_path / "run" / "errors").iterdir()
    rows = pq.read_table(path).to_pylist()
    assert [(row["index"], row["stage"], row["kind"]) for row in rows] == [
        (0, "discover", "identical_regions"), (1, "discover", "identical_regions"),
    ]  # fmt: skip
    assert "a and b" in rows[0]["message"]


@pytest.mark.parametrize("name", ["jacobian of x", "localised", "pullback"])
def test_a_run_edits_every_image_with_the_directions_it_finds(
    world: World, shards: ModuleType, tmp_path: Path, name: str
) -> None:
    made = config(shards, world, tmp_path / "run", VARIANTS[name], pipeline="edit_dataset")
    outcome = run(made, console=Console(quiet=True), rules=Rules(workers=1))
    assert (outcome.exit_code, outcome.done) == (0, 1)
    folder = RunFolder(str(tmp_path / "run"))
    assert verify(folder, deep=True).problems == ()
    rows = pq.read_table(folder.commit_url("in")).to_pylist()
    found = {(d.index, d.id): d for d in stored(tmp_path / "run")}
    assert {(r["index"], r["direction"]) for r in rows} == set(found)
    assert len(rows) == 2 * len(found)
    assert all(r["in_change"] > 0 for r in rows)
    assert len({r["sha256"] for r in rows}) == len(rows)
    if name != "localised":
        assert [d.h_norm for d in found.values()] == pytest.approx(len(found) * [sqrt(768)])
