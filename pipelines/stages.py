"""From a config to the four loaded stages: the one place where options meet models."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from lib.calibration import calibrate
from lib.checkpoint import open_checkpoint, weights_sha256
from lib.direction_table import read_library
from lib.grid import edited_nodes, make_grid
from lib.problems import ConfigProblem
from lib.region_names import WHOLE
from lib.run_folder import RunFolder
from lib.unet2d import load_denoiser
from pipelines.config import MaskFile, RunConfig
from pipelines.discovery_config import JacobianDiscovery, LibraryDiscovery
from tasks.discover import JacobianDiscoverer, LibraryDiscoverer
from tasks.edit import Editor, refuse_out_of_reach
from tasks.invert import Inverter
from tasks.segment import MaskSource, Segmenter


@dataclass(frozen=True, slots=True)
class Stages:
    """invert -> segment -> discover -> edit, loaded and ready."""

    image_size: int
    invert: Inverter
    segment: Segmenter
    discover: JacobianDiscoverer | LibraryDiscoverer
    edit: Editor


def build_stages(config: RunConfig, folder: RunFolder) -> Stages:
    """Load the model, calibrate it once for the run, and make the stages.

    Raises:
        ModelProblem: the checkpoint cannot be used.
        ConfigProblem: the config asks for what this model or library cannot do.
    """
    checkpoint = open_checkpoint(config.model.checkpoint)
    model = weights_sha256(checkpoint)
    grid = make_grid(checkpoint.scheduler_config, config.grid.num_steps, config.grid.spacing)
    nodes = edited_nodes(grid.timesteps, config.edit.window)
    denoiser = load_denoiser(
        checkpoint, chosen_device(config.execution.device), config.model.h_layer
    )
    h_norms = calibrate(folder.url("model.json"), denoiser, grid, model)
    discover: JacobianDiscoverer | LibraryDiscoverer
    kept: frozenset[int] = frozenset()
    if isinstance(config.discover, LibraryDiscovery):
        directions = read_library(
            config.discover.path,
            ids=config.discover.ids,
            regions=config.discover.regions or (*config.segment.regions, WHOLE),
            max_rank=config.discover.max_rank,
            max_directions=config.discover.max_directions,
            model=model,
            h_layer=config.model.h_layer,
            h_shape=denoiser.h_shape,
            latent_shape=denoiser.latent_shape,
        )
        refuse_out_of_reach(directions, grid, config.edit.window)
        unknown = sorted({d.region for d in directions} - {*config.segment.regions, WHOLE})
        if unknown:
            raise ConfigProblem(
                f"discover.ids: expected directions of regions in segment.regions, got some of"
                f" {unknown}; segment.regions defines {sorted(config.segment.regions)}"
            )
        discover = LibraryDiscoverer(directions)
    elif not isinstance(config.discover, JacobianDiscovery):
        raise ConfigProblem(f"discover.method: {config.discover.method} is not available yet")
    else:
        node = grid.nearest_node(config.discover.timesteps[0])
        kept = frozenset({node})
        discover = JacobianDiscoverer(
            denoiser,
            grid,
            node=node,
            directions=config.discover.directions,
            tolerance=config.discover.tolerance,
            max_rounds=config.discover.max_rounds,
            chunk=config.discover.chunk,
            model=model,
            h_layer=config.model.h_layer,
            h_norms=h_norms,
            vector_dtype=config.output.vector_dtype,
        )
    return Stages(
        image_size=denoiser.image_size,
        invert=Inverter(
            denoiser,
            grid,
            last=nodes[0],
            keep=kept,
            refinements=config.invert.refinements,
            batch_size=config.invert.batch_size,
        ),
        segment=Segmenter(
            mask_sources(config),
            size=denoiser.image_size,
            min_area=config.segment.min_area,
            max_area=config.segment.max_area,
            max_pixels=config.input.max_pixels,
        ),
        discover=discover,
        edit=Editor(
            denoiser,
            grid,
            window=config.edit.window,
            injection=config.edit.injection,
            strengths=config.edit.strengths,
            batch_size=config.edit.batch_size,
            h_norms=h_norms,
        ),
    )


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
