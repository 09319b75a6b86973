"""The timestep grid that inversion and decoding share, in plain float64.

One grid for both ways is what makes DDIM inversion exact for a constant noise prediction: the
published scripts use a shifted grid on one side and lose a whole step. Node 0 is the clean image
(alpha_bar = 1), node i has timestep t_i and alpha_bar(t_i); inversion goes 0 -> N, decoding N -> 0
over the same nodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lib.problems import ConfigProblem, ModelProblem

Schedule = npt.NDArray[np.floating[Any]]
"""One float64 a training timestep."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Timesteps t_1 < ... < t_N and alpha_bar at nodes 0..N."""

    timesteps: tuple[int, ...]
    alphas: tuple[float, ...]
    num_train_timesteps: int
    """T of the schedule of which these are a part."""

    @property
    def num_steps(self) -> int:
        """N."""
        return len(self.timesteps)

    def timestep(self, node: int) -> int:
        """Timestep of node 1..N."""
        return self.timesteps[node - 1]

    def last_node(self, highest_timestep: int) -> int:
        """The highest node whose timestep is not above `highest_timestep`: where inversion may
        stop.
        """
        return last_node(self.timesteps, highest_timestep)

    def nearest_node(self, timestep: int) -> int:
        """The node whose timestep is nearest (the lower one of two)."""
        return nearest_node(self.timesteps, timestep)


def grid_timesteps(num_steps: int, spacing: str, num_train_timesteps: int) -> tuple[int, ...]:
    """Ascending timesteps in [0, num_train_timesteps).

    `trailing` ends at the last timestep and keeps a whole step between the clean image and t_1;
    `leading` starts at 0; `linspace` includes both ends. The names are those of diffusers.
    """
    if num_steps > num_train_timesteps:
        raise ConfigProblem(
            f"grid.num_steps: expected at most the model's {num_train_timesteps} training"
            f" timesteps, got {num_steps}"
        )
    if spacing == "trailing":
        steps = [round(i * num_train_timesteps / num_steps) - 1 for i in range(1, num_steps + 1)]
    elif spacing == "leading":
        steps = [i * (num_train_timesteps // num_steps) for i in range(num_steps)]
    elif spacing == "linspace":
        steps = [int(t) for t in np.linspace(0, num_train_timesteps - 1, num_steps).round()]
    else:
        raise ConfigProblem(
            f"grid.spacing: expected trailing, leading or linspace, got {spacing!r}"
        )
    return tuple(steps)


def last_node(timesteps: tuple[int, ...], highest_timestep: int) -> int:
    """The highest node (1..N) with a timestep not above `highest_timestep`; 0 if there is none."""
    return sum(t <= highest_timestep for t in timesteps)


def nearest_node(timesteps: tuple[int, ...], timestep: int) -> int:
    """The node (1..N) whose timestep is nearest to `timestep`; the lower one of two."""
    return 1 + min(range(len(timesteps)), key=lambda i: (abs(timesteps[i] - timestep), i))


def renoised_nodes(timesteps: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The nodes nearest to the timesteps to which SDEdit noises an image, in their order.

    Raises:
        ConfigProblem: two timesteps have the same node.
    """
    nodes = tuple(nearest_node(timesteps, t) for t in wanted)
    if len(set(nodes)) < len(nodes):
        raise ConfigProblem(
            "edit.sdedit.timesteps: expected timesteps with different nearest neighbours in the"
            f" grid, got {list(wanted)}, which are {[timesteps[node - 1] for node in nodes]} there"
        )
    return nodes


def edited_nodes(timesteps: tuple[int, ...], window: tuple[int, int]) -> range:
    """Nodes whose timestep lies in `window` = (highest, lowest), descending.

    Raises:
        ConfigProblem: there is none.
    """
    high, low = window
    nodes = [i for i, t in enumerate(timesteps, 1) if low <= t <= high]
    if not nodes:
        raise ConfigProblem(
            f"edit.window: expected a window that holds a timestep of the grid ({timesteps[0]},"
            f" {timesteps[1]}, ... {timesteps[-1]}), got [{high}, {low}]"
        )
    return range(nodes[-1], nodes[0] - 1, -1)


def training_alphas(scheduler: Mapping[str, Any]) -> Schedule:
    """alpha_bar of every training timestep, float64 (T,), from a diffusers scheduler config."""
    count = int(scheduler.get("num_train_timesteps", 1000))
    if scheduler.get("trained_betas") is not None:
        betas: Schedule = np.asarray(scheduler["trained_betas"], dtype=np.float64)
    else:
        betas = _betas(scheduler, count)
    if betas.shape != (count,) or not ((betas > 0) & (betas < 1)).all():
        raise ModelProblem(
            f"scheduler_config.json: expected {count} betas in (0, 1), got {betas.shape[0]}"
            f" between {betas.min()} and {betas.max()}"
        )
    alphas: Schedule = np.cumprod(1.0 - betas)
    return alphas


def _betas(scheduler: Mapping[str, Any], count: int) -> Schedule:
    schedule = scheduler.get("beta_schedule", "linear")
    start, end = float(scheduler.get("beta_start", 1e-4)), float(scheduler.get("beta_end", 0.02))
    betas: Schedule
    if schedule == "linear":
        betas = np.linspace(start, end, count, dtype=np.float64)
    elif schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(start), math.sqrt(end), count, dtype=np.float64) ** 2
    elif schedule == "squaredcos_cap_v2":
        cosine = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1.0 - cosine[1:] / cosine[:-1], 0.999)
    else:
        raise ModelProblem(
            "scheduler_config.json: expected beta_schedule linear, scaled_linear or"
            f" squaredcos_cap_v2, got {schedule!r}"
        )
    return betas


def make_grid(scheduler: Mapping[str, Any], num_steps: int, spacing: str) -> Grid:
    """The grid of `num_steps` network evaluations for a diffusers scheduler config."""
    alphas = training_alphas(scheduler)
    timesteps = grid_timesteps(num_steps, spacing, len(alphas))
    return Grid(timesteps, (1.0, *(float(alphas[t]) for t in timesteps)), len(alphas))
