"""A run's directions, used by another run."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import torch

from lib.direction import WHOLE, Direction
from lib.directions.direction_table import from_table, to_table
from lib.directions.library_files import library_files
from lib.ledger.run_folder import RunFolder
from lib.problems import ConfigProblem
from pipelines.report.page import write_report


@pytest.fixture(scope="module")
def first(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    root = tmp_path_factory.mktemp("first")
    shard = shards.write_tar(root / "in" / "a.tar", shards.samples(3))
    shards.work(shards.config(tiny_checkpoint, shard, root / "run"), [shard])
    return root


def rows(folder: RunFolder) -> list[dict[str, object]]:
    return list(pq.read_table(folder.commit_url("a")).to_pylist())


def test_a_stored_direction_makes_the_same_image_as_when_it_was_found(
    first: Path, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    def pictures(folder: Path) -> dict[tuple[object, ...], Any]:
        shown = shards.images(folder)
        return {
            (r["index"], r["direction"], r["strength"]): shown[str(r["member"])]
            for r in rows(RunFolder(str(folder)))
        }

    found = pictures(first / "run")
    library = {"method": "library", "path": str(first / "run" / "directions")}
    made = shards.config(
        tiny_checkpoint, first / "in" / "a.tar", tmp_path / "run", discover=library
    )
    _, (report,) = shards.work(made, [first / "in" / "a.tar"])
    used = pictures(tmp_path / "run")
    assert report.n_edits == 3 * 3 * 2  # every image, the direction of each image, two strengths
    assert found.keys() <= used.keys()
    # Other edits share the batch, and some processors round by its size: a level of 255 at most.
    assert max(abs(image - used[key]).max() for key, image in found.items()) <= 1
    assert not (tmp_path / "run" / "directions").exists()


def test_a_run_folder_is_a_library_of_its_own_and_its_merged_directions(
    first: Path, tmp_path: Path
) -> None:
    stored = sorted((first / "run" / "directions").iterdir())
    run = tmp_path / "run"
    for name in ("directions/b.parquet", "merged/a.parquet", "manifest/x.parquet", "run.json"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).touch()
    assert library_files(str(first / "run")) == [str(path) for path in stored]
    names = [Path(url).relative_to(run).as_posix() for url in library_files(str(run))]
    assert names == ["directions/b.parquet", "merged/a.parquet"]


def test_a_library_folder_is_its_table_alone(tmp_path: Path) -> None:
    for name in ("directions.parquet", "other.parquet", "library.json"):
        (tmp_path / name).touch()
    assert library_files(str(tmp_path)) == [str(tmp_path / "directions.parquet")]


def library_of(first: Path, **changes: object) -> list[Direction]:
    (path,) = (first / "run" / "directions").iterdir()
    return [replace(d, **changes) for d in from_table(pq.read_table(path))]  # type: ignore[arg-type]


def write_library(path: Path, directions: list[Direction]) -> str:
    pq.write_table(to_table(directions, "float16"), path)
    return str(path)


@pytest.mark.parametrize("layout", ["edited", "pairs"])
def test_directions_of_the_whole_image_are_applied_without_being_asked_for(
    first: Path, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, layout: str
) -> None:
    path = write_library(tmp_path / "whole.parquet", library_of(first, region=WHOLE))
    made = shards.config(
        tiny_checkpoint,
        first / "in" / "a.tar",
        tmp_path / "run",
        discover={"method": "library", "path": path, "max_directions": 1},
        output={"folder": str(tmp_path / "run"), "layout": layout},
    )
    folder, _ = shards.work(made, [first / "in" / "a.tar"])
    found = rows(folder)
    assert {r["region"] for r in found} == {WHOLE}
    assert {r["mask_area"] for r in found} == {1.0}
    assert all(math.isnan(cast(float, r["roir"])) for r in found)
    (tar,) = (tmp_path / "run" / "images").iterdir()
    sides = [json.loads(d) for n, d in shards.members(tar).items() if n.endswith(".json")]
    assert {side["roir"] for side in sides} == {None}
    write_report(str(tmp_path / "run"))
    assert "nan" not in (tmp_path / "run" / "report" / "index.html").read_text()


def test_a_direction_of_x_above_the_window_is_refused_before_work(
    first: Path, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    vector_SCYX = torch.full((1, 3, 16, 16), 1 / math.sqrt(768))
    of_x = library_of(first, space="x", vector_SCYX=vector_SCYX, timesteps=(832,))
    path = write_library(tmp_path / "x.parquet", of_x)
    made = shards.config(
        tiny_checkpoint,
        first / "in" / "a.tar",
        tmp_path / "run",
        discover={"method": "library", "path": path},
        edit={"window": [700, 300]},
    )
    with pytest.raises(ConfigProblem, match="moves x at timestep 832"):
        shards.work(made, [first / "in" / "a.tar"])


def test_ids_choose_exactly_those_directions(
    first: Path, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    wanted = str(rows(RunFolder(str(first / "run")))[0]["direction"])
    library = {"method": "library", "path": str(first / "run" / "directions"), "ids": [wanted]}
    made = shards.config(
        tiny_checkpoint, first / "in" / "a.tar", tmp_path / "run", discover=library
    )
    folder, _ = shards.work(made, [first / "in" / "a.tar"])
    assert {r["direction"] for r in rows(folder)} == {wanted}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ids": ["0" * 16]}, "has no ids"),
        ({"path": "/nowhere"}, "found none at /nowhere"),
    ],
)
def test_a_library_without_what_was_asked_is_refused_before_work(
    first: Path,
    tiny_checkpoint: Path,
    shards: ModuleType,
    tmp_path: Path,
    change: dict[str, object],
    sentence: str,
) -> None:
    library = {"method": "library", "path": str(first / "run" / "directions")} | change
    made = shards.config(
        tiny_checkpoint, first / "in" / "a.tar", tmp_path / "run", discover=library
    )
    with pytest.raises(ConfigProblem, match=sentence):
        shards.work(made, [first / "in" / "a.tar"])


def test_a_library_of_another_layer_is_refused(
    first: Path, tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    library = {"method": "library", "path": str(first / "run" / "directions")}
    model = {"checkpoint": str(tiny_checkpoint), "h_layer": "before"}
    made = shards.config(
        tiny_checkpoint, first / "in" / "a.tar", tmp_path / "run", discover=library, model=model
    )
    with pytest.raises(ConfigProblem, match="layer after"):
        shards.work(made, [first / "in" / "a.tar"])
