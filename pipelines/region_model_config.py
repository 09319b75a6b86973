"""The section `region_model`: how regions are learned from all images of a run."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config_section import PositiveInt, Section, Timestep, distinct_timesteps


class RegionFit(Section):
    """For `pipeline: region_model`: features of the network at every pixel, clustered."""

    clusters: Annotated[int, Field(ge=2, le=255)] = 32
    """To tell apart; several may be one part, which naming unites. Small parts need many."""
    timesteps: Annotated[tuple[Timestep, ...], Field(min_length=1)] = (120,)
    """Noise levels at which the network looks at an image, each one network evaluation; any
    training timesteps.
    """
    blocks: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Up blocks of the network whose outputs are compared, 0 the deepest; empty: the one whose
    output is nearest to 32 on a side.
    """
    colour: Annotated[float, Field(ge=0.0)] = 0.5
    """Weight of the pixel's own colour beside every map's 1; sharpens the borders."""
    pixels: PositiveInt = 256
    """Of every image, drawn by its content."""
    coreset: Annotated[int, Field(ge=2)] = 256
    """Centres that stand for the pixels of 32 images, and of a shard."""

    @field_validator("timesteps")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)

    @field_validator("blocks")
    @classmethod
    def _each_once(cls, blocks: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(blocks)) < len(blocks):
            raise ValueError(f"expected every block once, got {list(blocks)}")
        return blocks

    @model_validator(mode="after")
    def _enough_centres(self) -> Self:
        if self.coreset < 2 * self.clusters:
            raise ValueError(
                f"coreset: expected at least twice as many as clusters ({self.clusters}), got"
                f" {self.coreset}"
            )
        return self
