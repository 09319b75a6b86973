"""The nodes of the grid at which an editor is trained."""

from __future__ import annotations

from lib.problems import ConfigProblem
from lib.sampling.grid import edited_nodes
from pipelines.training.config import TrainConfig


def window_nodes(config: TrainConfig, timesteps: tuple[int, ...]) -> tuple[int, ...]:
    """Those of `editor.window`, descending; raises ConfigProblem where there is none."""
    try:
        return tuple(edited_nodes(timesteps, config.editor.window))
    except ConfigProblem as error:
        raise ConfigProblem(str(error).replace("edit.window", "editor.window")) from error
