"""Whole trainings of every kind of editor on an untrained network: what they leave, what lowers the
loss, and that an interruption leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from lib.directions.library_rows import read_record
from lib.editors.editor_files import read_editor
from lib.editors.editor_table import editor_url, read_editor_rows
from lib.ledger.run_folder import RunConflict
from lib.problems import ConfigProblem, Problem
from pipelines.training.checkpoint import last_checkpoint
from pipelines.training.config import TrainConfig
from pipelines.training.preflight import check_training
from pipelines.training.training import Stopped

Configs = Callable[..., TrainConfig]
Trainer = Callable[..., Path]

RECTIFIER = {
    "kind": "rectifier",
    "name": "faithful",
    "window": [999, 0],
    "width": 8,
    "branch_width": 8,
    "learning_rate": 0.01,
}
KINDS: dict[str, dict[str, Any]] = {
    "delta_h": {"kind": "delta_h", "name": "bright", "window": [500, 0], "learning_rate": 0.003},
    "rectifier": RECTIFIER,
    "fine_tune": {"kind": "fine_tune", "name": "bright", "learning_rate": 1e-3},
    "lora": {"kind": "lora", "name": "bright", "rank": 2, "learning_rate": 0.02},
}
TYPES = {
    "delta_h": "direction",
    "rectifier": "rectifier",
    "fine_tune": "model_delta",
    "lora": "model_delta",
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (record,) = read_editor_rows(str(folder))
    return read_editor(editor_url(str(folder), record.id))[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_leaves_a_library_with_its_editor_and_lowers_the_loss(
    config: Configs, trained: Trainer, kind: str
) -> None:
    schedule = {"steps": 24, "batch_size": 4}
    folder = trained(config(editor=KINDS[kind], training=schedule))
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints", "editors", "editors.parquet", "library.json", "losses.parquet",
        "training.json",
    ]  # fmt: skip
    assert not list((folder / "checkpoints").iterdir())
    (record,) = read_editor_rows(str(folder))
    assert (record.type, record.purpose) == (TYPES[kind], "editing")
    assert (record.images, record.steps) == (12, 24)
    assert read_record(str(folder))["trained"]["editor"] == record.id
    again, _ = read_editor(editor_url(str(folder), record.id))
    assert again == record
    losses = pq.read_table(folder / "losses.parquet")
    assert losses.column_names == ["step", "total", "paired"]
    assert losses["step"].to_pylist() == list(range(1, 25))
    first, last = record.losses["paired"]
    assert last < first


def test_a_rectifier_learns_to_reconstruct_without_an_objective(
    config: Configs, trained: Trainer
) -> None:
    schedule = {"steps": 60, "batch_size": 6}
    folder = trained(config(editor=RECTIFIER, objective=[], training=schedule))
    (record,) = read_editor_rows(str(folder))
    assert record.purpose == "reconstruction"
    assert record.losses["noise"][1] < record.losses["noise_frozen"][1]


def test_editing_starts_from_a_trained_rectifier(
    config: Configs, trained: Trainer, tmp_path: Path
) -> None:
    first = trained(config(editor=RECTIFIER, objective=[]))
    (start,) = read_editor_rows(str(first))
    editor = RECTIFIER | {"name": "bright", "start": str(first)}
    other = config(editor=editor, output={"folder": str(tmp_path / "edit")})
    check_training(other)
    (record,) = read_editor_rows(str(trained(other)))
    assert (record.parents, record.purpose) == ((start.id,), "editing")


@pytest.mark.parametrize("style", ["random", "inverted", "unrolled"])
@pytest.mark.parametrize("stop_after", [1, 3, 6])
def test_an_interrupted_training_ends_with_the_weights_of_one_that_was_not(
    config: Configs, trained: Trainer, tmp_path: Path, style: str, stop_after: int
) -> None:
    schedule: dict[str, Any] = {"steps": 9, "batch_size": 4, "checkpoint_every": 2}
    schedule |= {"style": "unrolled"} if style == "unrolled" else {"style": "random"}
    schedule |= {"x_t": "inverted"} if style == "inverted" else {}
    whole = trained(config(training=schedule, output={"folder": str(tmp_path / "whole")}))
    parts = config(training=schedule, output={"folder": str(tmp_path / "parts")})
    steps = iter(range(1, 100))
    with pytest.raises(Stopped):
        trained(parts, asked=lambda: next(steps) >= stop_after)
    found = last_checkpoint(parts.output.folder, read_fingerprint(parts))
    assert found is not None
    assert 0 < found.step < 9
    trained(parts)
    assert_same(weights(whole), weights(tmp_path / "parts"))
    one, two = ((tmp_path / n / "losses.parquet").read_bytes() for n in ("whole", "parts"))
    assert one == two


def read_fingerprint(config: TrainConfig) -> str:
    from pipelines.training.claim import read_training

    return str(read_training(config.output.folder)["fingerprint"])


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


def test_another_training_is_refused_its_folder(config: Configs, trained: Trainer) -> None:
    trained(config())
    other = config(training={"steps": 9, "batch_size": 4})
    with pytest.raises(RunConflict, match=r"training\.steps: 8 / 9"):
        trained(other)


def test_bad_samples_are_rows_in_errors_and_a_bad_shard_too(
    config: Configs, trained: Trainer, shards: ModuleType, pictures: list[str], tmp_path: Path
) -> None:
    lone, broken = tmp_path / "lone.tar", tmp_path / "broken.tar"
    lone.write_bytes(shards.tar_bytes(shards.sample("alone", 3)))
    broken.write_bytes(b"no tar at all")
    urls = [*pictures, str(lone), str(broken)]
    folder = trained(config(input={"shards": urls}))
    rows = pq.read_table(folder / "errors.parquet").to_pylist()
    found = {(row["shard"], row["index"], row["stage"], row["kind"]) for row in rows}
    assert ("lone", 0, "target", "no_target") in found
    assert any(row["shard"] == "broken" and row["index"] is None for row in rows)
    (record,) = read_editor_rows(str(folder))
    assert record.images == 12


def test_no_image_at_all_is_refused(
    config: Configs, trained: Trainer, shards: ModuleType, tmp_path: Path
) -> None:
    lone = tmp_path / "lone.tar"
    lone.write_bytes(shards.tar_bytes(shards.sample("alone", 3)))
    with pytest.raises(ConfigProblem, match=r"alone\.bright\.png"):
        trained(config(input={"shards": [str(lone)]}))


def test_other_contents_of_the_shards_are_refused_when_going_on(
    config: Configs, trained: Trainer, shards: ModuleType, pictures: list[str], tmp_path: Path
) -> None:
    moved = tmp_path / "pictures-0.tar"
    moved.write_bytes(Path(pictures[0]).read_bytes())
    mine = config(input={"shards": [str(moved)]})
    with pytest.raises(Stopped):
        trained(mine, asked=lambda: True)
    moved.write_bytes(Path(pictures[1]).read_bytes())
    with pytest.raises(Problem, match="other contents"):
        trained(mine)


def test_a_loss_that_is_not_finite_ends_the_training(config: Configs, trained: Trainer) -> None:
    wild = {"kind": "fine_tune", "name": "wild", "learning_rate": 1e30}
    with pytest.raises(Problem, match=r"editor\.learning_rate"):
        trained(config(editor=wild))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"objective": []}, "only a rectifier needs none"),
        ({"execution": {"workers": 2}}, "engine: ray"),
        ({"execution": {"engine": "ray", "workers": 3}}, "multiple of the 3 workers"),
        ({"editor": {"kind": "delta_h", "name": "b", "window": [3, 9]}}, "highest, lowest"),
        ({"model": {"guidance_scale": 2.0}}, "without guidance"),
        ({"training": {"latents": "x"}}, "x_t: inverted"),
    ],
)
def test_contradictions_are_refused(
    config: Configs, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        config(**sections)


def test_an_unrolled_training_walks_whole_trajectories(config: Configs) -> None:
    unrolled = config(training={"style": "unrolled", "steps": 8, "batch_size": 4})
    with pytest.raises(ConfigProblem, match=r"multiple of the 3 grid timesteps"):
        check_training(unrolled)


def test_a_window_between_the_grid_timesteps_is_refused(config: Configs) -> None:
    with pytest.raises(ConfigProblem, match=r"editor\.window"):
        check_training(config(editor={"kind": "delta_h", "name": "b", "window": [310, 305]}))
