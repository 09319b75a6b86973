"""The demo: faces of known factors through all stages here, and where the result lies."""

from __future__ import annotations

import os
from typing import Literal

from rich.console import Console
from rich.panel import Panel

from cluster.runner import run
from cluster.settlement import Outcome
from pipelines.config_file import load_config

_SHARDS, _FACES_A_SHARD, _SEED = 8, 8, 0
_HELD_OUT_SHARDS, _HELD_OUT_SEED = 2, 5000
"""Other faces, for `library score`; the training set of the embedded model has neither."""
_TRAINING_SHARDS, _TRAINING_FACES, _TRAINING_SEED = 32, 32, 7000
"""Further ones, for `deltah train`."""


def make_faces(output: str, console: Console) -> list[str]:
    """Make `faces/` and `held-out/` below `output`, the inputs of the demo's presets; faces that
    are there already are kept. Returns the URLs of the first.
    """
    from lib.demo.shards import write_shards
    from lib.models.kernels import settle

    faces, held_out = os.path.join(output, "faces"), os.path.join(output, "held-out")
    console.print(
        f"making {_SHARDS * _FACES_A_SHARD} faces in {faces}, and"
        f" {_HELD_OUT_SHARDS * _FACES_A_SHARD} others in {held_out}",
        highlight=False,
        soft_wrap=True,
    )
    settle(1)  # drawing in several threads stands still on a machine that is busy
    write_shards(
        held_out,
        shards=_HELD_OUT_SHARDS,
        faces_per_shard=_FACES_A_SHARD,
        seed=_HELD_OUT_SEED,
        name="held-out",
    )
    return write_shards(faces, shards=_SHARDS, faces_per_shard=_FACES_A_SHARD, seed=_SEED)


def make_training_faces(output: str, console: Console) -> None:
    """Make `training/` below `output`: faces beside the same faces with a wider smile and with more
    open eyes, for the presets of `deltah train`.
    """
    from lib.demo.shards import write_shards
    from lib.models.kernels import settle

    folder = os.path.join(output, "training")
    console.print(
        f"making {_TRAINING_SHARDS * _TRAINING_FACES} faces with counterfactuals in {folder}",
        highlight=False,
        soft_wrap=True,
    )
    settle(1)
    write_shards(
        folder,
        shards=_TRAINING_SHARDS,
        faces_per_shard=_TRAINING_FACES,
        seed=_TRAINING_SEED,
        name="training",
        raised=("smile", "eye_open"),
    )


def run_demo(output: str, engine: Literal["local", "ray"], workers: int | None) -> Outcome:
    """Make the input below `output`, run the preset `demo-learned` on it and write the report.

    The panel at the end names what was made; before it stand a worker's memory, the progress line
    and what the run took.
    """
    console = Console(stderr=True)
    folder = os.path.join(output, "run")
    urls = make_faces(output, console)
    count = workers or (1 if engine == "local" else 2)
    preset = load_config("demo-learned")
    config = preset.model_copy(
        update={
            "input": preset.input.model_copy(update={"shards": tuple(urls)}),
            "output": preset.output.model_copy(update={"folder": folder}),
            "execution": preset.execution.model_copy(
                update={"engine": engine, "workers": count, "gpus_per_worker": 0.0}
            ),
        }
    )
    # Ray's own cluster, even where RAY_ADDRESS names one: the demo is of this machine.
    outcome = run(config, address="local" if engine == "ray" else None, console=console)
    if outcome.exit_code == 0:
        from pipelines.report.page import write_report

        report = write_report(folder)
        lines = (
            f"edited images  {folder}/images/*.tar   (WebDataset)",
            f"manifest       {folder}/manifest/*.parquet",
            f"directions     {folder}/directions/*.parquet",
            f"dataset card   {folder}/README.md",
            f"report         {report}",
            "",
            f"check it:      deltah verify {folder} --deep",
        )
        Console().print(Panel("\n".join(lines), title="deltah demo", expand=False), highlight=False)
    return outcome
