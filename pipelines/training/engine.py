"""What a training loads: the frozen model, its grid, and the unit of h at the window's nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import Checkpoint, weights_sha256
from lib.sampling.calibration import h_norms
from lib.sampling.grid import Grid, make_grid, training_alphas
from pipelines.engine import chosen_device
from pipelines.model_source import conditioning_of, open_model
from pipelines.training.config import TrainConfig
from pipelines.training.window import window_nodes


@dataclass(frozen=True, slots=True)
class TrainingEngine:
    """Loaded, on its device."""

    checkpoint: Checkpoint
    denoiser: Denoiser
    grid: Grid
    nodes: tuple[int, ...]
    """Of the window, descending."""
    model: str
    """SHA-256 of the weights."""
    alphas_T: Tensor
    """alpha_bar of every training timestep, float32, CPU."""

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Of the nodes."""
        return tuple(self.grid.timestep(node) for node in self.nodes)

    def h_norms(self) -> Mapping[int, float]:
        """Mean norm of h by timestep; runs the network."""
        return h_norms(self.denoiser, self.grid)


def load_training_engine(config: TrainConfig, device: torch.device | None = None) -> TrainingEngine:
    """Load the model; `device` overrides the config's.

    Raises:
        ModelProblem: the checkpoint cannot be used.
        ConfigProblem: the window holds no timestep of the grid.
    """
    checkpoint = open_model(config.model)
    grid = make_grid(checkpoint.scheduler_config, config.grid.num_steps, config.grid.spacing)
    nodes = window_nodes(config, grid.timesteps)
    where = chosen_device(config.execution.device) if device is None else device
    denoiser = load_denoiser(checkpoint, where, config.model.h_layer, conditioning_of(config.model))
    alphas: Any = training_alphas(checkpoint.scheduler_config)
    return TrainingEngine(
        checkpoint,
        denoiser,
        grid,
        nodes,
        weights_sha256(checkpoint),
        torch.tensor(alphas, dtype=torch.float32),
    )
