"""What every section of a config shares: the base class and the kinds of values."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Timestep = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, serialize_by_alias=True
    )


def distinct_timesteps(timesteps: tuple[int, ...]) -> tuple[int, ...]:
    """The timesteps themselves; raises ValueError where one is there twice."""
    if len(set(timesteps)) != len(timesteps):
        raise ValueError("expected distinct timesteps")
    return timesteps
