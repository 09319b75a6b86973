"""From a config to the loaded stages: the one place where options meet models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lib.calibration import calibrate
from lib.checkpoint import open_checkpoint, weights_sha256
from lib.denoiser import Denoiser
from lib.direction_reach import refuse_out_of_reach
from lib.direction_table import read_library
from lib.grid import Grid, edited_nodes, make_grid
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from lib.run_folder import RunFolder
from lib.unet2d import load_denoiser
from pipelines.config import MaskFile, RunConfig
from pipelines.discovery_config import JacobianDiscovery, LibraryDiscovery
from pipelines.discovery_work import discovery_work
from tasks.discover import JacobianDiscoverer, LibraryDiscoverer
from tasks.edit import Editor
from tasks.invert import Inverter
from tasks.segment import MaskSource, Segmenter

Discoverer = JacobianDiscoverer | LibraryDiscoverer


@dataclass(frozen=True, slots=True)
class Engine:
    """The loaded model, its grid and its unit of strength."""

    denoiser: Denoiser
    grid: Grid
    h_norms: Mapping[int, float]
    """Mean norm of h by timestep."""
    model: str
    """SHA-256 of the weights."""


@dataclass(frozen=True, slots=True)
class Stages:
    """invert -> segment -> discover -> edit, loaded and ready."""

    image_size: int
    invert: Inverter
    segment: Segmenter
    discover: Discoverer
    edit: Editor


def build_stages(config: RunConfig, folder: RunFolder) -> Stages:
    """Load the model, calibrate it once for the run, and make the stages.

    Raises:
        ModelProblem: the checkpoint cannot be used.
        ConfigProblem: the config asks for what this model or library cannot do.
    """
    engine = load_engine(config, folder)
    discovery_work(config, engine.grid.timesteps)  # refuses what the plan would refuse
    nodes = edited_nodes(engine.grid.timesteps, config.edit.window)
    discover, kept = build_discoverer(config, engine)
    return Stages(
        image_size=engine.denoiser.image_size,
        invert=build_inverter(config, engine, last=nodes[0], keep=kept),
        segment=build_segmenter(config, engine),
        discover=discover,
        edit=Editor(
            engine.denoiser,
            engine.grid,
            window=config.edit.window,
            injection=config.edit.injection,
            strengths=config.edit.strengths,
            batch_size=config.edit.batch_size,
            h_norms=engine.h_norms,
        ),
    )


def load_engine(config: RunConfig, folder: RunFolder) -> Engine:
    """Load the model on its device; the first worker of a run calibrates it. Raises as
    `build_stages`.
    """
    checkpoint = open_checkpoint(config.model.checkpoint)
    model = weights_sha256(checkpoint)
    grid = make_grid(checkpoint.scheduler_config, config.grid.num_steps, config.grid.spacing)
    device = chosen_device(config.execution.device)
    denoiser = load_denoiser(checkpoint, device, config.model.h_layer)
    h_norms = calibrate(folder.url("model.json"), denoiser, grid, model)
    return Engine(denoiser, grid, h_norms, model)


def build_discoverer(config: RunConfig, engine: Engine) -> tuple[Discoverer, frozenset[int]]:
    """The discoverer, and the nodes at which it asks for x_t. Raises as `build_stages`."""
    discover = config.discover
    if isinstance(discover, LibraryDiscovery):
        return _library(config, discover, engine), frozenset()
    if not isinstance(discover, JacobianDiscovery):
        raise ConfigProblem(f"discover.method: {discover.method} is not available yet")
    node = engine.grid.nearest_node(discover.timesteps[0])
    jacobian = JacobianDiscoverer(
        engine.denoiser,
        engine.grid,
        node=node,
        directions=discover.directions,
        tolerance=discover.tolerance,
        max_rounds=discover.max_rounds,
        chunk=discover.chunk,
        model=engine.model,
        h_layer=config.model.h_layer,
        h_norms=engine.h_norms,
        vector_dtype=config.output.vector_dtype,
    )
    return jacobian, frozenset({node})


def build_inverter(
    config: RunConfig, engine: Engine, *, last: int, keep: frozenset[int]
) -> Inverter:
    """Inversion to node `last`, or the highest of those whose x_t is kept."""
    return Inverter(
        engine.denoiser,
        engine.grid,
        last=last,
        keep=keep,
        refinements=config.invert.refinements,
        batch_size=config.invert.batch_size,
    )


def build_segmenter(config: RunConfig, engine: Engine) -> Segmenter:
    """Masks from side files or boxes at the model's size."""
    return Segmenter(
        mask_sources(config),
        size=engine.denoiser.image_size,
        min_area=config.segment.min_area,
        max_area=config.segment.max_area,
        max_pixels=config.input.max_pixels,
    )


def _library(config: RunConfig, discover: LibraryDiscovery, engine: Engine) -> LibraryDiscoverer:
    directions = read_library(
        discover.path,
        ids=discover.ids,
        regions=discover.regions or (*config.segment.regions, WHOLE),
        max_rank=discover.max_rank,
        max_directions=discover.max_directions,
        model=engine.model,
        h_layer=config.model.h_layer,
        h_shape=engine.denoiser.h_shape,
        latent_shape=engine.denoiser.latent_shape,
    )
    refuse_out_of_reach(directions, engine.grid, config.edit.window)
    unknown = sorted({d.region for d in directions} - {*config.segment.regions, WHOLE})
    if unknown:
        raise ConfigProblem(
            f"discover.ids: expected directions of regions in segment.regions, got some of"
            f" {unknown}; segment.regions defines {sorted(config.segment.regions)}"
        )
    return LibraryDiscoverer(directions)


def mask_sources(config: RunConfig) -> dict[str, MaskSource]:
    """Every region's side file or box."""
    return {
        name: source.file if isinstance(source, MaskFile) else source.box
        for name, source in config.segment.regions.items()
    }


def chosen_device(name: str) -> torch.device:
    """The device that `execution.device` means here; raises ConfigProblem if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigProblem("execution.device: expected a CUDA device, but torch sees none here")
    return torch.device(name)
