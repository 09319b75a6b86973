"""The section `edit` of a config: what is done to the images, and where on the way down."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config_section import Fraction, PositiveInt, Section, Timestep
from pipelines.edit_plan_config import EditPlan, SdEdit, distinct_strengths


class Guard(Section):
    """Blends x_t outside an edit's region with the reconstruction after every step."""

    dilation: Fraction = 0.03
    """How far around its region the edit is left alone, as a fraction of the image's side."""
    feather: Fraction = 0.03
    """Over which distance beyond that it fades into the reconstruction."""


class WindowRule(Section):
    """Asyrp's perceptual rule: editing ends where the network begins to see the image."""

    measure: Literal["auto", "lpips", "ssim"] = "auto"
    """auto: LPIPS where it is installed, else ssim."""
    images: PositiveInt = 16
    """The first of the first shards, on which it is measured."""
    cosine: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of the two texts or labels of the edit; the lower, the further down the window reaches."""
    boost: bool = False
    """Whether `boost_below` is set by the rule too."""


class Edit(Section):
    """What is done to the images."""

    method: Literal["shift", "sdedit"] = "shift"
    """shift: along directions; sdedit: noise to a timestep and denoise (SDEdit), a baseline without
    inversion and without directions, for which nothing of this section but `sdedit` and
    `batch_size` counts.
    """
    injection: Literal["asymmetric", "symmetric"] = "asymmetric"
    """asymmetric: only the predicted x_0 sees the shifted h (Asyrp); symmetric: both terms of the
    step do.
    """
    window: tuple[Timestep, Timestep] = (900, 300)
    """Highest and lowest timestep at which h is shifted; inversion stops at the highest."""
    strengths: Annotated[tuple[float, ...], Field(min_length=1)] = (-0.1, 0.1)
    """In units of the model's mean norm of h; the effect does not depend on the number of steps. Of
    directions with a unit of their own (`reference`), in that: 1 meets the reference.
    """
    batch_size: PositiveInt = 16
    """Edits of one image decoded together."""
    window_rule: WindowRule | None = None
    """Where set, the lowest timestep is found by the run: Asyrp's perceptual rule, not below the
    one in `window`.
    """
    boost_below: Timestep = 0
    """With inversion ddim: below this timestep decoding adds fresh seeded noise at every step, eta
    = 1 (quality boosting); the reconstruction then differs from the image in details. 0: nowhere.
    """
    reach: Literal["window", "found"] = "window"
    """window: a direction of h is shifted at every step in the window; found: at the grid timesteps
    nearest to its own alone.
    """
    x_edit: Literal["shift", "guidance"] = "shift"
    """How a direction of x is applied at its timestep. shift: x + strength |unit noise| v (LOCO);
    guidance: x + s (eps(x + d v) - eps(x)), repeated (pullback).
    """
    guidance_scale: Annotated[float, Field(gt=0.0)] = 0.1
    """s of strength 1."""
    guidance_steps: PositiveInt = 16
    """How often guidance is repeated; each costs two network evaluations an edit."""
    guidance_reach: Annotated[float, Field(gt=0.0)] = 1.0
    """d, the length of the probing step along the direction of unit norm."""
    guard: Guard | None = None
    """Where set, the image outside an edit's region is held at the reconstruction; none: it is
    measured and left as it is.
    """
    plan: EditPlan = EditPlan()
    """Which edits: `{entries: [...], sample: 8}`. Without it every direction at every strength."""
    sdedit: SdEdit = SdEdit()
    """With method sdedit: `{timesteps: [300, 500], seeds: 2}`."""

    @field_validator("strengths")
    @classmethod
    def _usable(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        return distinct_strengths(strengths)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.window[0] < self.window[1]:
            raise ValueError(
                "expected window as [highest, lowest] timestep, the first not below the second"
            )
        return self
