"""The section `editor` of a training: what is learned, one class a kind, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lib.region_names import WHOLE
from pipelines.config_section import Fraction, Name, PositiveInt, Section, Timestep

Rate = Annotated[float, Field(gt=0.0)]


class AnyEditor(Section):
    """What all kinds share."""

    name: Name
    """What the editor is called: its label in plans, reports and libraries."""
    region: Name = WHOLE
    """The region that it is to change, by which its edits are measured; `image` is the whole."""
    window: tuple[Timestep, Timestep] = (900, 300)
    """Highest and lowest timestep at which it is trained and will be applied."""
    unit: Rate = 1.0
    """What strength 1 of an edit is, as a factor on what was trained: below 1 where that does too
    much when the steps add up.
    """

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.window[0] < self.window[1]:
            raise ValueError(
                "expected window as [highest, lowest] timestep, the first not below the second"
            )
        return self


class StepShiftsEditor(AnyEditor):
    """A free shift of h for every grid timestep in the window, the same for all images (Asyrp's
    delta h).
    """

    kind: Literal["delta_h"]
    learning_rate: Rate = 0.1
    """In units of the root mean square of h's entries, so that it fits every model."""


class FunctionEditor(AnyEditor):
    """f_t, a small network that shifts h depending on h and t (Asyrp's DeltaBlock)."""

    kind: Literal["direction_fn"]
    learning_rate: Rate = 0.003
    """Of Adam or SGD; the released code takes SGD with 0.5."""
    ignores_time: bool = False
    """Without the time embedding, as Asyrp's --ignore_timesteps."""


class RectifierEditor(AnyEditor):
    """A network that modulates the kernels of mid and up blocks (Hou et al.). Without an objective
    it learns to reconstruct; with one, and `start`, to edit.
    """

    kind: Literal["rectifier"]
    window: tuple[Timestep, Timestep] = (999, 0)
    """Highest and lowest timestep at which it is trained and will be applied."""
    learning_rate: Rate = 1e-3
    """Of Adam."""
    encoder: Literal["small", "resnet"] = "small"
    """small: a few convolutions, for small images; resnet: a residual network of transformers,
    ResNet34 with the default depths and width.
    """
    width: PositiveInt = 32
    """Channels of the encoder's first stage; ResNet34 has 64."""
    depths: tuple[PositiveInt, ...] = (3, 4, 6, 3)
    """Blocks of each stage of a resnet."""
    branch_width: PositiveInt = 32
    """Channels of the branch of every modulated convolution."""
    loss: Literal["relative", "noise"] = "relative"
    """Without an objective. noise: the squared error of the predicted noise (Hou et al.); relative:
    each example's over the frozen network's own, so that all timesteps count alike.
    """
    start: str | None = None
    """The folder or file of a rectifier to go on from, such as one trained to reconstruct."""


class FineTuneEditor(AnyEditor):
    """All weights of the U-Net (DiffusionCLIP). Its file is as large as the model."""

    kind: Literal["fine_tune"]
    window: tuple[Timestep, Timestep] = (500, 0)
    """Highest and lowest timestep at which it is trained and will be applied."""
    learning_rate: Rate = 8e-6
    """Of Adam, as DiffusionCLIP."""


class LoraEditor(AnyEditor):
    """Low-rank updates of the U-Net's weights (DiffusionCLIP through peft)."""

    kind: Literal["lora"]
    window: tuple[Timestep, Timestep] = (500, 0)
    """Highest and lowest timestep at which it is trained and will be applied."""
    learning_rate: Rate = 1e-3
    """Of Adam."""
    rank: PositiveInt = 8
    """Of every update."""
    scale: Rate = 1.0
    """Of the updates: alpha / rank in peft's terms."""
    layers: Literal["attention", "convolutions", "all"] = "all"
    """Which weights are updated."""
    dropout: Fraction = 0.0
    """Of the updates' inputs while training."""


Editor = Annotated[
    StepShiftsEditor | FunctionEditor | RectifierEditor | FineTuneEditor | LoraEditor,
    Field(discriminator="kind"),
]
