"""The config of a training: one frozen pydantic tree, read from YAML as a run's is.

Nothing here imports torch or ray.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipelines.config import Grid, Input, Model
from pipelines.config_section import PositiveInt, Section
from pipelines.training.editor_config import Editor, RectifierEditor
from pipelines.training.objective_config import Terms


class Schedule(Section):
    """How the editor is trained."""

    style: Literal["random", "unrolled"] = "random"
    """random: every example at a timestep of its own, x_t from its image (not Markov, after Hou et
    al.); unrolled: x_t follows the edited trajectory down the window from the inverted image, with
    an optimizer step at every node (Asyrp, DiffusionCLIP).
    """
    x_t: Literal["noised", "inverted"] = "noised"
    """With style random: the image with fresh noise, or where DDIM inversion takes it, as it will
    be when edits are made. Inverted once, before the training.
    """
    latents: str | None = None
    """Inverted x_t are read from this run of `pipeline: store_latents`, whose `invert.keep` holds
    the timesteps; without it the images are inverted here.
    """
    refinements: Annotated[int, Field(ge=0)] = 2
    """Of the inversion that is done here: fixed-point iterations a step."""
    steps: PositiveInt = 400
    """Optimizer steps."""
    batch_size: PositiveInt = 16
    """Examples a step, of all workers together."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam with beta 0.9 and 0.999, or plain SGD."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """Hou et al. take 1e-5 for reconstruction."""
    decay: Literal["cosine", "step", "none"] = "cosine"
    """Of the learning rate: to nothing over all steps; by `decay_factor` every `decay_every` steps;
    or not at all.
    """
    decay_factor: Annotated[float, Field(gt=0.0)] = 0.9
    """With decay step; DiffusionCLIP takes 1.3, which grows."""
    decay_every: PositiveInt = 5000
    """With decay step."""
    clip_norm: Annotated[float, Field(gt=0.0)] = 1.0
    """Longest gradient; longer ones are shortened to it."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of everything that is drawn: weights, order, timesteps, noise."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the networks' passes; weights, losses and updates are float32 in any case. auto: bfloat16
    on a card that has it, else float32.
    """
    checkpoint_every: PositiveInt = 100
    """Steps between two checkpoints, from which a killed training goes on."""


class TrainOutput(Section):
    """Where the editor goes."""

    folder: str
    """Local folder or fsspec URL; one folder is one training, and a library that holds its
    editor.
    """
    dtype: Literal["float16", "float32"] = "float32"
    """How the editor's tensors are stored."""


class TrainExecution(Section):
    """How the work is done; changes no result beyond the rounding of sums."""

    engine: Literal["local", "ray"] = "local"
    """This process, or data-parallel workers of Ray Train."""
    workers: PositiveInt = 1
    """With the engine ray: processes that share every batch."""
    gpus_per_worker: Annotated[float, Field(ge=0.0)] = 0.0
    """With the engine ray."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: a GPU where torch sees one."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """With the engine ray: how often lost workers are replaced before the training fails; -1:
    always.
    """
    cache: str | None = None
    """A local folder for decoded images and inverted x_t, one for all workers of a machine; without
    it, the system's folder for temporary files.
    """


class TrainConfig(Section):
    """A training: shards in, a learned editor out."""

    input: Input
    model: Model = Model()
    grid: Grid = Grid(num_steps=20)
    """Whose timesteps in the window are trained."""
    editor: Editor
    objective: Terms = ()
    """What the edited prediction should be: terms that are added, each with a weight. None: a
    rectifier learns to reconstruct.
    """
    training: Schedule = Schedule()
    output: TrainOutput
    execution: TrainExecution = TrainExecution()

    @property
    def reconstructs(self) -> bool:
        """Whether a rectifier learns to reconstruct instead of to edit."""
        return isinstance(self.editor, RectifierEditor) and not self.objective

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if not self.objective and not isinstance(self.editor, RectifierEditor):
            raise ValueError("objective: expected at least one term; only a rectifier needs none")
        training, workers = self.training, self.execution.workers
        if self.execution.engine == "local" and workers != 1:
            raise ValueError(
                f"execution.workers: expected 1 with the engine local, got {workers}; expected"
                " engine: ray for more"
            )
        if training.batch_size % workers:
            raise ValueError(
                f"training.batch_size: expected a multiple of the {workers} workers, which share"
                f" every batch, got {training.batch_size}"
            )
        noised = training.style == "random" and training.x_t == "noised"
        if training.latents is not None and noised:
            raise ValueError("training.latents: expected x_t: inverted with it")
        if self.reconstructs and (training.style == "unrolled" or training.x_t == "inverted"):
            raise ValueError(
                "training.style: a rectifier learns to reconstruct from noised images alone;"
                " expected style: random and x_t: noised"
            )
        if self.model.guidance_scale > 1.0:
            raise ValueError(
                "model.guidance_scale: editors are trained without guidance; expected 1"
            )
        return self
