"""What of a training can be refused before it is begun."""

from __future__ import annotations

from lib.editors.editor_record import RECTIFIER
from lib.editors.library_editors import editor_head
from lib.models.checkpoint import weights_sha256
from lib.problems import ConfigProblem
from lib.sampling.grid import grid_timesteps
from pipelines.model_source import open_model
from pipelines.training.config import TrainConfig
from pipelines.training.editor_config import RectifierEditor
from pipelines.training.objective_building import refuse_unfit_objective
from pipelines.training.window import window_nodes


def check_training(config: TrainConfig) -> None:
    """Refuse what cannot be trained.

    Raises:
        ModelProblem: the checkpoint or a model of the objective cannot be used.
        ConfigProblem: the window holds no timestep of the grid, the objective asks for what its
            models lack, or what the editor starts from is not there.
    """
    checkpoint = open_model(config.model)
    timesteps = grid_timesteps(
        config.grid.num_steps, config.grid.spacing, checkpoint.num_train_timesteps
    )
    nodes = window_nodes(config, timesteps)
    schedule = config.training
    if schedule.style == "unrolled" and schedule.steps % len(nodes):
        raise ConfigProblem(
            f"training.steps: with style unrolled expected a multiple of the {len(nodes)} grid"
            f" timesteps in the window, which are walked down whole, got {schedule.steps}"
        )
    if isinstance(config.editor, RectifierEditor) and config.editor.start is not None:
        model = weights_sha256(checkpoint)
        editor_head(config.editor.start, RECTIFIER, model, "editor.start")
    refuse_unfit_objective(config.objective, checkpoint.image_size)


def trained_timesteps(config: TrainConfig) -> tuple[int, ...]:
    """Of the grid in the window, from the highest down; raises as `check_training`."""
    checkpoint = open_model(config.model)
    timesteps = grid_timesteps(
        config.grid.num_steps, config.grid.spacing, checkpoint.num_train_timesteps
    )
    return tuple(timesteps[node - 1] for node in window_nodes(config, timesteps))


def training_evaluations(config: TrainConfig) -> int:
    """Network evaluations of all steps together, a pass of the decoder half counted as one: the
    frozen network's and the edited one's of every example.
    """
    return 2 * config.training.steps * config.training.batch_size
