"""The training of an editor from the first step to the last, as one of its workers does it. Killed
at any moment, it goes on from the last checkpoint and ends with the same weights.

Shape suffixes: T terms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lib.fingerprint import sample_seed
from lib.models.kernels import settle
from lib.problems import Problem
from pipelines.inputs import ShardInput
from pipelines.training.batches import (
    Batches,
    InvertedBatches,
    NoisedBatches,
    Plan,
    UnrolledBatches,
)
from pipelines.training.checkpoint import EMPTY, History, last_checkpoint, save_checkpoint
from pipelines.training.config import TrainConfig
from pipelines.training.curves import TOTAL
from pipelines.training.editor_building import Built, build_editor
from pipelines.training.editor_config import RectifierEditor, StepShiftsEditor
from pipelines.training.engine import TrainingEngine, load_training_engine
from pipelines.training.example_store import Examples, cleared
from pipelines.training.examples import prepared_examples
from pipelines.training.loss import TrainingLoss
from pipelines.training.objective_building import build_objective
from pipelines.training.optimisation import learning_rate, make_optimizer
from pipelines.training.progress import Progress
from pipelines.training.result import Result, write_result
from pipelines.training.world import World


class DivergedError(Problem):
    """The loss is NaN or infinite."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a worker is told."""

    config: TrainConfig
    fingerprint: str
    shards: tuple[ShardInput, ...]
    cache: Path
    """A folder of this machine for the examples, of this try alone."""


class Stopped(Exception):
    """The training was asked to stop, and has left a checkpoint."""


def never() -> bool:
    """Nobody asks the training to stop."""
    return False


def train(
    order: Order,
    world: World,
    report: Callable[[Progress], None],
    *,
    asked: Callable[[], bool] = never,
) -> None:
    """Train to the end; rank 0 writes the result. `asked` is looked at after every step.

    Raises:
        ModelProblem, ConfigProblem: the model, the objective or the examples cannot be used.
        DivergedError: the loss is NaN or infinite.
        Stopped: `asked` said so.
    """
    config = order.config
    settle(config.model.cpu_threads)
    report(Progress("loading"))
    engine = load_training_engine(config)
    report(Progress("reading examples"))
    try:
        examples = prepared_examples(
            config, order.shards, engine.denoiser, engine.grid, engine.nodes, order.cache
        )
        built = build_editor(config, engine)
        history = _optimise(order, world, report, engine, built, examples, asked)
        if world.rank == 0:
            done = Result(config, order.fingerprint, engine, built, examples, history)
            write_result(done)
        world.wait()
    finally:
        if world.place == 0:
            cleared(order.cache)


def _optimise(
    order: Order,
    world: World,
    report: Callable[[Progress], None],
    engine: TrainingEngine,
    built: Built,
    examples: Examples,
    asked: Callable[[], bool],
) -> History:
    config, device = order.config, engine.denoiser.device
    optimizer = make_optimizer(config, built.editor)
    objective = build_objective(config.objective, device) if config.objective else None
    relative = isinstance(config.editor, RectifierEditor) and config.editor.loss == "relative"
    precision = chosen_precision(config, device)
    loss = TrainingLoss(built.noise, engine.denoiser, objective, precision, relative=relative)
    first, history = 0, EMPTY
    found = last_checkpoint(config.output.folder, order.fingerprint)
    if found is not None:
        if found.data_sha256 != examples.data_sha256:
            raise Problem(
                "input.shards: the shards have other contents than when this training began;"
                " expected the same, or another output.folder"
            )
        found.restore(built.editor, optimizer)
        first, history = found.step, found.history
    shared = world.shared(loss, device)
    batches = _batches(config, engine, built, examples, world)
    seed = str(config.training.seed)
    rows, names, since = list(history.rows), history.names, time.monotonic()
    for step in range(first, config.training.steps):
        torch.manual_seed(sample_seed(seed, f"dropout of worker {world.rank}", step))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        batch = batches.batch(step)
        losses = shared(batch)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        _clip(built.editor, config.training.clip_norm)
        optimizer.step()
        batches.carry(batch, losses.plain_BLYX, losses.edited_BLYX)
        names = (TOTAL, *losses.terms)
        mean_T = world.mean(torch.stack([losses.total.detach(), *losses.terms.values()]))
        rows.append(tuple(mean_T.tolist()))
        if not all(map(math.isfinite, rows[-1])):
            raise DivergedError(
                f"the loss is {rows[-1][0]} at step {step + 1}; expected a lower"
                " editor.learning_rate, or training.precision: float32"
            )
        done = step + 1
        speed = (done - first) * config.training.batch_size / (time.monotonic() - since)
        report(
            Progress(
                "training",
                done,
                config.training.steps,
                dict(zip(names, rows[-1], strict=True)),
                speed,
            )
        )
        stops = asked() and done % batches.cycle == 0
        if world.rank == 0 and (stops or _is_due(config, batches, done)):
            save_checkpoint(
                config.output.folder,
                fingerprint=order.fingerprint,
                data_sha256=examples.data_sha256,
                step=done,
                history=History(names, tuple(rows)),
                editor=built.editor,
                optimizer=optimizer,
            )
        if stops and done < config.training.steps:
            raise Stopped
    return History(names, tuple(rows))


def _is_due(config: TrainConfig, batches: Batches, done: int) -> bool:
    """Whether a checkpoint is to be written after so many steps: where nothing of the batches
    before is needed, and the last one is as old as was asked for.
    """
    every = -(-config.training.checkpoint_every // batches.cycle) * batches.cycle
    return done % every == 0 or done == config.training.steps


def _batches(
    config: TrainConfig,
    engine: TrainingEngine,
    built: Built,
    examples: Examples,
    world: World,
) -> Batches:
    plan = Plan(
        examples=examples,
        grid=engine.grid,
        alphas_T=engine.alphas_T,
        nodes=engine.nodes,
        seed=config.training.seed,
        batch_size=config.training.batch_size,
        rank=world.rank,
        workers=world.workers,
        device=engine.denoiser.device,
    )
    if config.training.style == "unrolled":
        return UnrolledBatches(plan, asymmetric=built.asymmetric)
    if config.training.x_t == "inverted":
        return InvertedBatches(plan)
    on_grid = isinstance(config.editor, StepShiftsEditor)
    return NoisedBatches(plan, config.editor.window, on_grid=on_grid)


def chosen_precision(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Of the networks' passes."""
    if config.training.precision == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if able else torch.float32
    return torch.bfloat16 if config.training.precision == "bfloat16" else torch.float32


def _clip(editor: nn.Module, norm: float) -> None:
    trained: Sequence[nn.Parameter] = [p for p in editor.parameters() if p.grad is not None]
    nn.utils.clip_grad_norm_(trained, norm)
