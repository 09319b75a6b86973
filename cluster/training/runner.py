"""A training from its config to its exit code: claim the folder, go on where it stopped, train, say
what came of it. Where it is done already, neither torch nor ray is imported.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from rich.console import Console

from cluster.progress import duration, redrawn
from lib.directions.library_rows import RECORD as LIBRARY_RECORD
from lib.editors.editor_record import EditorRecord
from lib.editors.editor_table import read_editor_rows
from lib.files import storage
from pipelines.inputs import ShardInput, absolute, expand_inputs, missing_inputs, none_there
from pipelines.training.claim import claim
from pipelines.training.config import TrainConfig
from pipelines.training.editor_config import RectifierEditor
from pipelines.training.objective_config import located
from pipelines.training.preflight import (
    check_training,
    trained_timesteps,
    training_evaluations,
)
from pipelines.training.progress import Progress, read_progress

EXIT_STOPPED = 1


class Live:
    """The last progress of a training in this process."""

    def __init__(self) -> None:
        self.now = Progress("starting")

    def __call__(self, progress: Progress) -> None:
        """Take note."""
        self.now = progress


def run_training(config: TrainConfig, *, address: str | None, console: Console) -> int:
    """Train, or go on; returns the exit code.

    Raises:
        Problem: config, inputs, models, folder or cluster are refused, or the training failed.
        OSError: the inputs cannot be read, or the folder cannot be written.
    """
    config = _located(config)
    shards = expand_inputs(config.input.shards)
    if len(missing_inputs(shards)) == len(shards):
        raise none_there(shards)
    check_training(config)
    fingerprint = claim(config, shards)
    root = config.output.folder
    if not storage.exists(storage.join(root, LIBRARY_RECORD)):
        stopped = _train(config, fingerprint, shards, address, console)
        if stopped:
            console.print(
                f"stopped by {stopped}; run the same command again to go on", highlight=False
            )
            return EXIT_STOPPED
    _show_result(root, console)
    return 0


def show_cost(config: TrainConfig, console: Console) -> None:
    """What the training will be, after all that can be refused was looked at.

    Raises:
        Problem: as `run_training`.
    """
    shards = expand_inputs(config.input.shards)
    if len(missing_inputs(shards)) == len(shards):
        raise none_there(shards)
    check_training(config)
    timesteps = trained_timesteps(config)
    rows = [
        ("editor", f"{config.editor.name}, a {config.editor.kind}"),
        ("shards", f"{len(shards):,}"),
        ("timesteps", f"{timesteps[0]} down to {timesteps[-1]}, {len(timesteps)} of the grid"),
        ("optimizer steps", f"{config.training.steps:,} of {config.training.batch_size} examples"),
        ("network evaluations", f"{training_evaluations(config):,}, as many gradients beside"),
    ]
    for label, value in rows:
        console.print(f"{label:20s} {value}", markup=False, highlight=False, soft_wrap=True)


def _located(config: TrainConfig) -> TrainConfig:
    """With absolute paths: workers run in other folders."""
    output = config.output.model_copy(update={"folder": absolute(config.output.folder)})
    changes: dict[str, object] = {
        "output": output,
        "objective": located(config.objective, absolute),
    }
    if isinstance(config.editor, RectifierEditor) and config.editor.start is not None:
        start = absolute(config.editor.start)
        changes["editor"] = config.editor.model_copy(update={"start": start})
    if config.training.latents is not None:
        latents = absolute(config.training.latents)
        changes["training"] = config.training.model_copy(update={"latents": latents})
    return config.model_copy(update=changes)


def _train(
    config: TrainConfig,
    fingerprint: str,
    shards: tuple[ShardInput, ...],
    address: str | None,
    console: Console,
) -> str:
    """Returns the name of the signal that stopped it, or ""."""
    root = config.output.folder
    if config.execution.engine == "ray":
        from cluster.training.ray_training import train_on_ray

        with redrawn(lambda _now: _line(config, read_progress(root)), console):
            train_on_ray(config, fingerprint, shards, address)
        return ""
    from cluster.interrupts import Interrupts
    from pipelines.training.training import Order, Stopped, train
    from pipelines.training.world import Alone

    live = Live()
    base = config.execution.cache or tempfile.gettempdir()
    cache = Path(tempfile.mkdtemp(prefix="deltah-train-", dir=base)) / "examples"
    order = Order(config, fingerprint, shards, cache)
    with redrawn(lambda _now: _line(config, live.now), console), Interrupts() as interrupts:
        try:
            train(order, Alone(), live, asked=lambda: bool(interrupts.asked))
        except Stopped:
            return interrupts.asked
        finally:
            shutil.rmtree(cache.parent, ignore_errors=True)
    return ""


def _line(config: TrainConfig, progress: Progress | None) -> str:
    """The progress line."""
    name = config.editor.name
    if progress is None or not progress.steps:
        return f"train {name} | {progress.phase if progress else 'starting'}"
    left = progress.steps - progress.step
    speed = progress.examples_per_s
    eta = duration(left * config.training.batch_size / speed) if speed > 0 else "?"
    terms = " ".join(f"{term} {value:.4f}" for term, value in progress.terms.items())
    return (
        f"train {name} | step {progress.step}/{progress.steps} | {terms} | {speed:.1f} img/s"
        f" | ETA {eta}"
    )


def _show_result(root: str, console: Console) -> None:
    record: EditorRecord = read_editor_rows(root)[0]
    losses = ", ".join(f"{n} {a:.4f} -> {b:.4f}" for n, (a, b) in record.losses.items())
    lines = (
        f"trained {record.label}: {record.type} {record.id} on {record.images:,} images,"
        f" {record.steps:,} steps",
        f"  loss  {losses}",
        f"  file  {storage.redact(storage.join(root, 'editors', record.id))}.safetensors",
        f"  page  deltah show {storage.redact(root)}",
        "  use   "
        + (
            f"model.rectifier: {storage.redact(root)}"
            if record.purpose == "reconstruction"
            else f"learned: {{path: {storage.redact(root)}}} in a run's config"
        ),
    )
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
