"""The section `invert` of a config: how an image becomes x_t, and with that how x_t becomes an
image.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config_section import PositiveInt, Section, Timestep, distinct_timesteps

_Eta = Annotated[float, Field(ge=0.0, le=1.0)]


class Invert(Section):
    """From the image up to x_t, or reading what another run has found so; decoding goes the same
    way back.
    """

    method: Literal["ddim", "edict", "bdia", "ddpm"] = "ddim"
    """ddim: deterministic, inexact, for which refinements help; bdia: exact at the cost of one more
    evaluation; edict: exact at twice the cost of every step; ddpm: random x_t with stored noise,
    exact where eta is above 0.
    """
    refinements: Annotated[int, Field(ge=0, le=10)] = 0
    """Fixed-point refinements of every inversion step of ddim; each costs one more network
    evaluation a step.
    """
    mixing: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.93
    """Of edict: how much of itself each of the two states keeps in a step."""
    gamma: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Of bdia: how much of the step from the node above is taken back; below 1, x_t grows too large
    as steps go on.
    """
    eta: _Eta | tuple[tuple[Timestep, _Eta], ...] = 1.0
    """Of ddpm: how random every step is, up to 1; or a list of `[timestep, eta]` by ascending
    timestep, between which it is linear.
    """
    batch_size: PositiveInt = 8
    """Images a forward pass; cut by position in the shard, so part of the fingerprint."""
    latents: str | None = None
    """Output folder of a run that stored latents (`output.latents`): they are read instead of
    inverting. That run must have the same input, model, grid and inversion; the bytes made are
    those of a run that inverts.
    """
    report: bool = False
    """Decode every image unedited too and put the PSNR into the manifest, in a run that edits
    nothing; a run that edits does so in any case.
    """
    keep: tuple[Timestep, ...] = ()
    """With `output.latents`: further timesteps whose x_t is stored, so that later runs can look for
    directions there; the nearest grid timesteps are used.
    """

    @field_validator("keep")
    @classmethod
    def _distinct(cls, keep: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(keep)

    @model_validator(mode="after")
    def _of_the_method(self) -> Self:
        for name, method in (
            ("refinements", "ddim"),
            ("mixing", "edict"),
            ("gamma", "bdia"),
            ("eta", "ddpm"),
        ):
            default = type(self).model_fields[name].default
            if method != self.method and getattr(self, name) != default:
                raise ValueError(
                    f"expected no {name} with method {self.method}; that is for method {method}"
                )
        return self

    @model_validator(mode="after")
    def _random_somewhere(self) -> Self:
        points = self.eta_points
        timesteps = [t for t, _ in points]
        if timesteps != sorted(set(timesteps)):
            raise ValueError(f"expected eta by ascending timestep, got the timesteps {timesteps}")
        if not any(eta > 0 for _, eta in points):
            raise ValueError("expected an eta above 0 somewhere; without noise it is method ddim")
        return self

    @property
    def eta_points(self) -> tuple[tuple[int, float], ...]:
        """(timestep, eta), ascending."""
        return self.eta if isinstance(self.eta, tuple) else ((0, self.eta),)
