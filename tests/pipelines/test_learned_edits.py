"""Runs that apply learned editors: alone, beside discovered directions, combined with them; what
they cost, and what is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from lib.editors.editor_table import read_editor_rows
from lib.ledger.verification import verify
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.library_editors import add_editors, bake_editor
from pipelines.plan import make_plan
from pipelines.training.claim import claim
from pipelines.training.config import TrainConfig
from pipelines.training.training import Order, train
from pipelines.training.world import Alone

STEPS = 6
PAIRED = {"kind": "paired", "file": "part.png"}
"""Of no sense, but for the networks it is a picture like another."""
EDITORS: dict[str, dict[str, Any]] = {
    "shift": {"kind": "delta_h", "window": [900, 0], "learning_rate": 0.01},
    "tuned": {"kind": "lora", "rank": 2, "learning_rate": 0.02, "window": [900, 0]},
    "other": {"kind": "fine_tune", "window": [900, 0]},
    "rectified": {"kind": "rectifier", "width": 8, "branch_width": 8, "start": "faithful"},
    "faithful": {"kind": "rectifier", "width": 8, "branch_width": 8},
    "function": {"kind": "direction_fn", "window": [900, 0]},
}


@pytest.fixture(scope="module")
def wide_checkpoint(backbones: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """h of 32 channels, which f_t needs."""
    from diffusers import DDPMPipeline, DDPMScheduler

    folder = tmp_path_factory.mktemp("wide") / "model"
    DDPMPipeline(backbones.unet(), DDPMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    tar = tmp_path_factory.mktemp("pictures") / "pictures.tar"
    tar.write_bytes(shards.tar_bytes(shards.samples(3, masked=True)))
    return str(tar)


@pytest.fixture(scope="module")
def library(wide_checkpoint: Path, pictures: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Editors of all kinds, hardly trained, in one library."""
    base = tmp_path_factory.mktemp("trainings")
    for name in ("faithful", *(n for n in EDITORS if n != "faithful")):
        editor = EDITORS[name] | {"name": name, "region": "part"}
        if "start" in editor:
            editor["start"] = str(base / editor["start"])
        config = TrainConfig.model_validate(
            {
                "input": {"shards": [pictures]},
                "model": {"checkpoint": str(wide_checkpoint)},
                "grid": {"num_steps": STEPS},
                "editor": editor,
                "objective": [] if name == "faithful" else [PAIRED],
                "training": {"steps": 3, "batch_size": 3},
                "output": {"folder": str(base / name)},
            }
        )
        shards = expand_inputs(config.input.shards)
        order = Order(config, claim(config, shards), shards, base / f"cache-{name}")
        train(order, Alone(), lambda _progress: None)
    add_editors(str(base / "library"), [str(base / name) for name in EDITORS])
    return base / "library"


Configs = Callable[..., RunConfig]


@pytest.fixture
def config(wide_checkpoint: Path, pictures: str, library: Path, tmp_path: Path) -> Configs:
    def make(entries: list[dict[str, Any]], **sections: Any) -> RunConfig:
        values: dict[str, Any] = {
            "input": {"shards": [pictures]},
            "model": {"checkpoint": str(wide_checkpoint)},
            "grid": {"num_steps": STEPS},
            "segment": {"regions": {"part": {"file": "part.png"}}},
            "discover": {"method": "none"},
            "learned": {"path": str(library)},
            "edit": {"window": [900, 0], "plan": {"entries": entries}},
            "output": {"folder": str(tmp_path / "run")},
        }
        return RunConfig.model_validate(values | sections)

    return make


def edited(config: RunConfig, shards: ModuleType) -> list[dict[str, Any]]:
    """The rows of the one shard, after the run has proved whole."""
    folder, (report,) = shards.work(config, [Path(url) for url in config.input.shards])
    assert report.n_err == 0
    assert verify(folder, deep=True).problems == ()
    rows: list[dict[str, Any]] = pq.read_table(folder.commit_url("pictures")).to_pylist()
    return rows


def test_editors_of_every_kind_are_applied_by_their_labels(
    config: Configs, shards: ModuleType, library: Path
) -> None:
    ids = {record.label: record.id for record in read_editor_rows(str(library))}
    labels = ["shift", "function", "tuned", "other", "rectified"]
    rows = edited(config([{"labels": [label], "strengths": [1.0]} for label in labels]), shards)
    assert [row["direction"] for row in rows[:5]] == [ids[label] for label in labels]
    assert {row["rank"] for row in rows} == {-1}
    assert {row["region"] for row in rows} == {"part"}
    # f_t has hardly been trained: its last layer began at zero.
    moved = [row["in_change"] + row["out_change"] for row in rows[:5]]
    assert all(
        change > 0 for label, change in zip(labels, moved, strict=True) if label != "function"
    )


def test_the_plan_states_the_evaluations_that_the_run_spends(
    config: Configs, shards: ModuleType
) -> None:
    entries = [
        {"labels": ["shift"], "strengths": [1.0]},
        {"labels": ["rectified"], "strengths": [1.0]},
        {"labels": ["tuned"], "strengths": [0.5, 1.0]},
        {"combine": [{"labels": ["shift"]}, {"labels": ["tuned"]}], "same_region": True},
    ]
    made = config(
        entries, edit={"window": [900, 0], "strengths": [1.0], "plan": {"entries": entries}}
    )
    plan = make_plan(made, expand_inputs(made.input.shards))
    rows = edited(made, shards)
    assert plan.edits == 5
    assert {row["network_evaluations"] for row in rows} == {plan.evaluations}


def test_learned_editors_stand_beside_and_are_combined_with_discovered_directions(
    config: Configs, shards: ModuleType, library: Path
) -> None:
    (shift,) = (r.id for r in read_editor_rows(str(library)) if r.label == "shift")
    entries = [
        {"methods": ["jacobian"], "strengths": [0.1]},
        {
            "combine": [
                {"methods": ["jacobian"], "strengths": [0.1]},
                {"labels": ["shift"], "strengths": [1.0]},
            ],
            "same_region": True,
        },
    ]
    discover = {"method": "jacobian", "directions": 1, "tolerance": 0.5}
    rows = edited(
        config(entries, discover=discover, learned={"path": str(library), "labels": ["shift"]}),
        shards,
    )
    assert [(row["rank"], row["added_ranks"]) for row in rows[:2]] == [(0, []), (0, [-1])]
    assert rows[1]["added_directions"] == [shift]
    assert len({row["direction"] for row in rows}) == 3  # each image has its own


def test_a_library_gives_its_editors_to_discover_too(
    config: Configs, shards: ModuleType, library: Path
) -> None:
    made = config(
        [{"labels": ["tuned"], "strengths": [1.0]}],
        learned=None,
        discover={"method": "library", "path": str(library)},
    )
    assert {row["rank"] for row in edited(made, shards)} == {-1}


def test_every_image_is_decoded_with_a_rectifier_where_the_model_has_one(
    config: Configs, shards: ModuleType, library: Path, wide_checkpoint: Path, tmp_path: Path
) -> None:
    (faithful,) = (r for r in read_editor_rows(str(library)) if r.label == "faithful")
    file = library / "editors" / f"{faithful.id}.safetensors"
    entries = [{"labels": ["shift"], "strengths": [1.0]}]
    plain = edited(config(entries, output={"folder": str(tmp_path / "plain")}), shards)
    model = {"checkpoint": str(wide_checkpoint), "rectifier": str(file)}
    made = config(entries, model=model)
    plan = make_plan(made, expand_inputs(made.input.shards))
    rectified = edited(made, shards)
    assert {row["network_evaluations"] for row in rectified} == {plan.evaluations}
    assert [row["psnr"] for row in plain] != [row["psnr"] for row in rectified]
    sdedit = RunConfig.model_validate(
        {
            "input": made.input.model_dump(),
            "model": model,
            "grid": {"num_steps": STEPS},
            "edit": {"method": "sdedit", "sdedit": {"timesteps": [500]}},
            "output": {"folder": str(tmp_path / "sdedit")},
        }
    )
    cost = make_plan(sdedit, expand_inputs(sdedit.input.shards)).evaluations
    assert {row["network_evaluations"] for row in edited(sdedit, shards)} == {cost}


@pytest.mark.parametrize(
    ("entries", "sections", "message"),
    [
        ([{"labels": ["smlie"]}], {}, "smlie"),
        (
            [{"combine": [{"labels": ["rectified"]}, {"labels": ["tuned"]}], "same_region": True}],
            {},
            "a rectifier is trained to correct the frozen network",
        ),
        ([{}], {"learned": {"path": "LIB", "labels": ["faithful"]}}, "model.rectifier"),
        ([{}], {"learned": {"path": "LIB", "labels": ["shfit"]}}, "nearest is 'shift'"),
        ([{}], {"learned": {"path": "nowhere"}}, "deltah train"),
        ([{}], {"segment": {"regions": {"other": {"file": "part.png"}}}}, "part"),
        (
            [{"labels": ["shift"]}],
            {"edit": {"window": [999, 950], "plan": {"entries": [{"labels": ["shift"]}]}}},
            r"edit\.window",
        ),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_by_the_plan(
    config: Configs, library: Path, entries: Any, sections: dict[str, Any], message: str
) -> None:
    learned = sections.get("learned")
    if learned is not None:
        learned["path"] = learned["path"].replace("LIB", str(library))
    made = config(entries, **sections)
    with pytest.raises(ConfigProblem, match=message):
        make_plan(made, expand_inputs(made.input.shards))


def test_an_editor_of_another_model_is_refused(
    config: Configs, tiny_checkpoint: Path, backbones: ModuleType, tmp_path: Path
) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    other = backbones.unet(norm_num_groups=4)
    DDPMPipeline(other, DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path / "other")
    made = config([{"labels": ["tuned"]}], model={"checkpoint": str(tmp_path / "other")})
    with pytest.raises(ConfigProblem, match="this run has model"):
        make_plan(made, expand_inputs(made.input.shards))


def test_a_function_is_averaged_into_a_direction_that_keeps_its_lengths(
    config: Configs, library: Path, tmp_path: Path, wide_checkpoint: Path
) -> None:
    import torch

    from lib.editors.editor_files import read_editor
    from lib.editors.editor_table import editor_url
    from pipelines.library_editors import store_editor

    (record,) = (r for r in read_editor_rows(str(library)) if r.label == "function")
    _, tensors = read_editor(editor_url(str(library), record.id))
    generator = torch.Generator().manual_seed(0)
    tensors["conv2.bias"] = torch.randn(32, generator=generator)
    root = str(tmp_path / "own")
    store_editor(root, record, tensors)
    made = bake_editor(
        root, record.id[:6], config([{}]), 2, per_step=True, checkpoint=str(wide_checkpoint)
    )
    assert made.parents == (record.id,)
    assert len(made.lengths) == len(made.timesteps) > 1
    assert all(length > 0 for length in made.lengths)
