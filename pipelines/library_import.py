"""`library import`: directions of other libraries and of other programs, put into a library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod, sqrt

import torch
from torch import Tensor

from lib.direction import WHOLE, Direction
from lib.directions.asyrp import DirectionFunction, read_asyrp
from lib.directions.asyrp_baking import baked, step_direction
from lib.directions.bare_directions import Placement, import_bare
from lib.directions.direction_files import import_directions
from lib.directions.library_store import Library
from lib.files import storage
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint, weights_sha256
from lib.models.time_embedding import load_time_embedding
from lib.problems import ConfigProblem
from lib.receipts import Failure
from lib.sampling.calibration import h_norms
from lib.sampling.grid import edited_nodes, make_grid
from pipelines.config import RunConfig
from pipelines.held_out import load_subject, read_held_out
from pipelines.library_changes import add_directions, checked_name
from pipelines.stages import build_inverter
from tasks.observe import Observer

FORMATS = ("deltah", "tensors", "asyrp")
_GRID_STEPS = 50
"""Of the grid on which the unit of strength of a bare tensor is measured."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a file does not say of itself; nothing of it is read for the format deltah."""

    kind: str = "deltah"
    """deltah: an export. tensors: bare tensors. asyrp: a .pth of Asyrp."""
    checkpoint: str = ""
    """The model that the directions belong to."""
    space: str = "h"
    h_layer: str = "after"
    timesteps: tuple[int, ...] = ()
    """Of bare tensors."""
    tensor: str = ""
    """Which one, where a file holds several."""
    region: str = WHOLE
    label: str = ""
    one_for_all_steps: bool = False
    """Asyrp: the mean over the timesteps instead of a step for each."""
    block: str = "0"
    """Asyrp: which network of a file of several."""
    ignores_time: bool = False
    """Asyrp: the network was trained without the time embedding."""
    window: tuple[int, int] | None = None
    """Asyrp, kept as a function: highest and lowest timestep at which it is to be applied."""


def import_file(
    root: str, url: str, origin: Origin, *, config: RunConfig | None, images: int
) -> tuple[Library, int]:
    """Put the directions in the file `url` into the library at `root`, which is begun where there
    is none; returns it and how many were new.

    A network of Asyrp is averaged over the first `images` images of `config`, at the grid's
    timesteps in its window.

    Raises:
        ConfigProblem: the file cannot be read as what it was said to be, something it needs was
            not given, or the directions do not fit the library.
        ModelProblem: the checkpoint cannot be used.
    """
    if origin.kind not in FORMATS:
        raise ConfigProblem(f"expected a format of {', '.join(FORMATS)}, got {origin.kind!r}")
    label = checked_name(origin.label) if origin.label else None
    if origin.kind == "deltah":
        found = import_directions(url)
        if origin.checkpoint:
            _check_model(found, weights_sha256(open_checkpoint(origin.checkpoint)), url)
        if label:
            found = tuple(replace(direction, label=label) for direction in found)
    elif not origin.checkpoint:
        raise ConfigProblem(
            f"--model: expected the checkpoint that {storage.redact(url)} belongs to, since the"
            " file does not say"
        )
    elif origin.kind == "tensors":
        if not origin.timesteps:
            raise ConfigProblem(
                f"--timesteps: expected where the directions of {storage.redact(url)} were found,"
                " since the file does not say"
            )
        placement = _placement(origin, origin.timesteps[0], label)
        found = import_bare(url, placement, origin.timesteps, tensor=origin.tensor)
    else:
        found = (_asyrp(url, origin, label, config, images),)
    details = {"imported": {"file": storage.basename(url), "format": origin.kind}}
    return add_directions(root, found, details)


def _check_model(found: tuple[Direction, ...], model: str, url: str) -> None:
    for direction in found:
        if direction.model != model:
            raise ConfigProblem(
                f"{storage.redact(url)}: direction {direction.id} is of model"
                f" {direction.model[:12]}, but --model is {model[:12]}"
            )


def _placement(origin: Origin, timestep: int, label: str | None) -> Placement:
    checkpoint = open_checkpoint(origin.checkpoint)
    if origin.h_layer not in ("before", "middle", "after"):
        raise ConfigProblem(f"--h-layer: expected before, middle or after, got {origin.h_layer!r}")
    denoiser = load_denoiser(checkpoint, torch.device("cpu"), origin.h_layer)
    shape, norm = denoiser.latent_shape, sqrt(prod(denoiser.latent_shape))
    if origin.space != "x":
        grid = make_grid(checkpoint.scheduler_config, _GRID_STEPS, "linspace")
        nearest = grid.timestep(grid.nearest_node(timestep))
        shape, norm = denoiser.h_shape, h_norms(denoiser, grid)[nearest]
    return Placement(
        model=weights_sha256(checkpoint),
        space=origin.space,
        h_layer=origin.h_layer,
        shape=shape,
        h_norm=norm,
        region=origin.region,
        label=label,
    )


def _asyrp(
    url: str, origin: Origin, label: str | None, config: RunConfig | None, images: int
) -> Direction:
    checkpoint = open_checkpoint(origin.checkpoint)
    content = read_asyrp(
        url,
        load_time_embedding(checkpoint),
        block=origin.block,
        ignores_time=origin.ignores_time,
    )
    per_step = not origin.one_for_all_steps
    if not isinstance(content, DirectionFunction):
        top = max(content.steps, default=checkpoint.num_train_timesteps - 1)
        return step_direction(content, _placement(origin, top, label), per_step=per_step, top=top)
    if config is None:
        raise ConfigProblem(
            f"--config: expected a run's config, because {storage.redact(url)} holds a network of"
            " h and t, which is averaged over the images of the config's shards"
        )
    seen = observed(origin, label, config, images)
    return baked(content, seen.h, seen.placement, per_step=per_step)


@dataclass(frozen=True, slots=True)
class Observed:
    """h of some images, over which a function is averaged."""

    h: Mapping[int, Tensor]
    """Timestep -> h_BCYX."""
    placement: Placement
    """Where such directions belong."""
    h_norms: Mapping[int, float]


def observed(origin: Origin, label: str | None, config: RunConfig, images: int) -> Observed:
    """Of the first images of a config, at its grid's timesteps in its window.

    Raises:
        ConfigProblem: the config is of another model, or an image cannot be read.
    """
    subject = load_subject(config)
    engine = subject.engine
    wanted = weights_sha256(open_checkpoint(origin.checkpoint))
    if engine.model != wanted:
        raise ConfigProblem(
            f"model.checkpoint: expected the model of --model, {wanted[:12]}, got"
            f" {engine.model[:12]}"
        )
    nodes = edited_nodes(engine.grid.timesteps, config.edit.window)
    timesteps = tuple(engine.grid.timestep(node) for node in nodes)
    keeping = build_inverter(config, engine, last=nodes[0], keep=frozenset(nodes))
    held_out = read_held_out(config, replace(subject, invert=keeping), (), images, least=1)
    observe = Observer(engine.denoiser, timesteps=timesteps, batch_size=config.invert.batch_size)
    failures: list[Failure] = []
    inverted = (image.inverted for image in held_out.images)
    seen = [one.h_SCYX for one in observe(inverted, failures.append)]
    if failures:
        raise ConfigProblem(
            f"{failures[0].shard} #{failures[0].index}: {failures[0].message}; expected images"
            " that the model can read, because directions are averaged over all of them"
        )
    h_NSCYX = torch.stack(seen)
    placement = Placement(
        model=engine.model,
        space=origin.space,
        h_layer=config.model.h_layer,
        shape=engine.denoiser.h_shape,
        h_norm=engine.h_norms[timesteps[0]],
        region=origin.region,
        label=label,
    )
    h = {t: h_NSCYX[:, step] for step, t in enumerate(timesteps)}
    return Observed(h, placement, engine.h_norms)
