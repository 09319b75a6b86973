"""The loaded model of a run: on its device, on its grid, calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lib.denoiser import Denoiser
from lib.ledger.run_folder import RunFolder
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import weights_sha256
from lib.problems import ConfigProblem
from lib.sampling.calibration import calibrate, h_norms
from lib.sampling.grid import Grid, make_grid
from pipelines.config import RunConfig
from pipelines.model_source import conditioning_of, open_model


@dataclass(frozen=True, slots=True)
class Engine:
    """The loaded model, its grid and its unit of strength."""

    denoiser: Denoiser
    grid: Grid
    h_norms: Mapping[int, float]
    """Mean norm of h by timestep."""
    model: str
    """SHA-256 of the weights."""


def load_engine(config: RunConfig, folder: RunFolder) -> Engine:
    """Load the model on its device; the first worker of a run calibrates it. Raises as
    `pipelines.stages.build_stages`.
    """
    denoiser, grid, model = load_model(config)
    return Engine(denoiser, grid, calibrate(folder.url("model.json"), denoiser, grid, model), model)


def load_free_engine(config: RunConfig) -> Engine:
    """The same without a run's folder: calibrated for itself, nothing is stored."""
    denoiser, grid, model = load_model(config)
    return Engine(denoiser, grid, h_norms(denoiser, grid), model)


def chosen_device(name: str) -> torch.device:
    """The device that `execution.device` means here; raises ConfigProblem if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigProblem("execution.device: expected a CUDA device, but torch sees none here")
    return torch.device(name)


def load_model(config: RunConfig) -> tuple[Denoiser, Grid, str]:
    """The network on its device, the grid, and the SHA-256 of the weights; not calibrated."""
    checkpoint = open_model(config.model)
    grid = make_grid(checkpoint.scheduler_config, config.grid.num_steps, config.grid.spacing)
    device = chosen_device(config.execution.device)
    conditioning = conditioning_of(config.model)
    denoiser = load_denoiser(checkpoint, device, config.model.h_layer, conditioning)
    return denoiser, grid, weights_sha256(checkpoint)
