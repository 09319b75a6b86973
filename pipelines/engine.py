"""The loaded model of a run: on its device, on its grid, calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lib.calibration import calibrate
from lib.checkpoint import open_checkpoint, weights_sha256
from lib.denoiser import Denoiser
from lib.grid import Grid, make_grid
from lib.problems import ConfigProblem
from lib.run_folder import RunFolder
from lib.unet2d import load_denoiser
from pipelines.config import RunConfig


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
    checkpoint = open_checkpoint(config.model.checkpoint)
    model = weights_sha256(checkpoint)
    grid = make_grid(checkpoint.scheduler_config, config.grid.num_steps, config.grid.spacing)
    device = chosen_device(config.execution.device)
    denoiser = load_denoiser(checkpoint, device, config.model.h_layer)
    h_norms = calibrate(folder.url("model.json"), denoiser, grid, model)
    return Engine(denoiser, grid, h_norms, model)


def chosen_device(name: str) -> torch.device:
    """The device that `execution.device` means here; raises ConfigProblem if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigProblem("execution.device: expected a CUDA device, but torch sees none here")
    return torch.device(name)
