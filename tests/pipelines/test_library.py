"""A run's directions, used by another run."""

from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from lib.problems import ConfigProblem
from lib.run_folder import RunFolder


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
    found = {
        (r["index"], r["direction"], r["strength"]): r["sha256"]
        for r in rows(RunFolder(str(first / "run")))
    }
    library = {"method": "library", "path": str(first / "run" / "directions")}
    made = shards.config(
        tiny_checkpoint, first / "in" / "a.tar", tmp_path / "run", discover=library
    )
    folder, (report,) = shards.work(made, [first / "in" / "a.tar"])
    used = {(r["index"], r["direction"], r["strength"]): r["sha256"] for r in rows(folder)}
    assert report.n_edits == 3 * 3 * 2  # every image, the direction of each image, two strengths
    assert found.items() <= used.items()
    assert not (tmp_path / "run" / "directions").exists()


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
