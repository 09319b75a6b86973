"""The section `discover`: one class a method, told apart by `discover.method`.

Methods of one image (jacobian, localised, null_space, jive, ajive, pullback, text, and reference in
`reference_config`) store their directions with the shard; pca and supervised (`study_config`) learn
from all images of a run; library applies what an earlier run has found.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipelines.config_section import Name, PositiveInt, Section, Timestep, distinct_timesteps
from pipelines.reference_config import ReferenceDiscovery
from pipelines.study_config import PcaDiscovery, SupervisedDiscovery


class KrylovDiscovery(Section):
    """What all methods share that read the Jacobian at given timesteps."""

    timesteps: Annotated[tuple[Timestep, ...], Field(min_length=1)] = (368,)
    """The nearest grid timesteps are used; several give every direction a step for each."""
    directions: PositiveInt = 3
    """Directions per region."""
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """The estimated sine of the angle to the true singular subspace at which iteration stops."""
    max_rounds: PositiveInt = 60
    """Rounds after which a direction is stored as not converged."""
    chunk: PositiveInt = 8
    """Jacobian-vector products in one call: bounds memory."""

    @field_validator("timesteps")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)


class RegionDiscovery(KrylovDiscovery):
    """What the methods share that factor the region-masked Jacobian."""

    products: Literal["linearised", "forward", "difference", "double_backward"] = "linearised"
    """How Jacobian-vector products are made. linearised: a forward pass of the network's
    derivative, one decoder pass each; forward: forward-mode differentiation; difference: central
    differences, three digits; double_backward: reverse mode alone. Where linearised products do
    not match the reverse mode, forward is used and recorded; the others are for networks that
    lack both.
    """


class JacobianDiscovery(RegionDiscovery):
    """Top right singular directions of the region-masked Jacobian of the network in h."""

    method: Literal["jacobian"] = "jacobian"
    space: Literal["h", "x"] = "h"
    """Where directions live: the bottleneck h, or the noisy latent x_t."""


class LocalisedDiscovery(RegionDiscovery):
    """Directions that change the region most for what they change in the rest of the image: a
    generalised eigenproblem.
    """

    method: Literal["localised"]
    space: Literal["h", "x"] = "h"
    """Where directions live: the bottleneck h, or the noisy latent x_t."""
    trade_off: Annotated[float, Field(gt=0.0)] = 0.1
    """lambda: the share of the identity in the denominator. Smaller is more local and weaker."""


class NullSpaceDiscovery(RegionDiscovery):
    """Singular directions of the region, without the strongest directions of the rest of the image
    (LOCO).
    """

    method: Literal["null_space"]
    space: Literal["h", "x"] = "h"
    """Where directions live: the bottleneck h, or the noisy latent x_t."""
    null_rank: PositiveInt = 24
    """Directions of the rest of the image that are taken out."""


class JiveDiscovery(RegionDiscovery):
    """Individual directions of every region beside those that the regions share (JIVE)."""

    method: Literal["jive"]
    joint_rank: PositiveInt | Literal["permutation", "angle"] = "angle"
    """Directions that the regions share: a number, or chosen by a permutation test or by the
    angles between the regions' subspaces.
    """
    individual_rank: PositiveInt | Literal["permutation"] = 5
    """Directions of each region alone: a number, or chosen by a permutation test."""
    factor_rank: PositiveInt = 20
    """Singular directions of each region's Jacobian that enter; found to an angle of 0.3 where
    tolerance asks for less.
    """

    @model_validator(mode="after")
    def _enough_ranks(self) -> Self:
        _refuse_few_ranks(self.directions, self.individual_rank, self.factor_rank)
        return self


class AjiveDiscovery(RegionDiscovery):
    """As jive, by angles between subspaces instead of iteration (AJIVE)."""

    method: Literal["ajive"]
    joint_rank: PositiveInt | Literal["bound"] = "bound"
    """Directions that the regions share: a number, or by the bounds of Wedin and of random
    subspaces.
    """
    individual_rank: PositiveInt = 5
    """Directions of each region alone."""
    factor_rank: PositiveInt = 20
    """Singular directions of each region's Jacobian that enter, half of them as signal; found to an
    angle of 0.3 where tolerance asks for less.
    """

    @model_validator(mode="after")
    def _enough_ranks(self) -> Self:
        _refuse_few_ranks(self.directions, self.individual_rank, self.factor_rank // 2)
        return self


class PullbackDiscovery(KrylovDiscovery):
    """Directions of x_t that move h most: the pullback basis of dh/dx_t (Park)."""

    method: Literal["pullback"]
    timesteps: Annotated[tuple[Timestep, ...], Field(min_length=1, max_length=1)] = (368,)
    """Exactly one; the nearest grid timestep is used."""
    space: Literal["h", "x"] = "x"
    """Where the stored directions live: x_t, or h (the left singular directions)."""
    transport: str | None = None
    """A library whose first `directions` of h are carried into each image instead of finding new
    ones.
    """
    basis: PositiveInt = 20
    """With transport: singular directions of the image that carry them. Few carry little; every
    direction records how much of it, as `carried`.
    """

    @model_validator(mode="after")
    def _carried_into_x(self) -> Self:
        if self.transport is not None and self.space != "x":
            raise ValueError("expected space: x, into which transport carries directions of h")
        return self


class TextDiscovery(Section):
    """A direction of the region towards one text and away from another (T-LOCO)."""

    method: Literal["text"]
    timesteps: Annotated[tuple[Timestep, ...], Field(min_length=1)] = (368,)
    """The nearest grid timesteps are used; several give every direction a step for each."""
    model: str
    """A CLIP model: a folder in transformers format with safetensors weights."""
    source: str
    """What the image shows, such as `a face`."""
    target: str
    """What it should show, such as `a smiling face`."""
    null_rank: Annotated[int, Field(ge=0)] = 0
    """Directions of the rest of the image that are taken out."""

    @field_validator("timesteps")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)


class LibraryDiscovery(Section):
    """Directions read from a library or an earlier run."""

    method: Literal["library"]
    path: str
    """A directions Parquet file, a folder of them, a run folder, or a library folder."""
    ids: tuple[str, ...] = ()
    """Exactly these direction ids; empty: all that match the rest."""
    regions: tuple[Name, ...] = ()
    """Only directions of these regions (`image`: the whole of it); empty: of every configured
    region and of the whole image.
    """
    max_rank: PositiveInt = 1
    """Only the first so many directions of every source image and region."""
    max_directions: PositiveInt = 16
    """At most so many directions, in the order of the file."""


class NoDiscovery(Section):
    """Nothing is found: for edits that need no directions (SDEdit)."""

    method: Literal["none"]


Discovery = Annotated[
    JacobianDiscovery
    | LocalisedDiscovery
    | NullSpaceDiscovery
    | JiveDiscovery
    | AjiveDiscovery
    | PullbackDiscovery
    | TextDiscovery
    | ReferenceDiscovery
    | PcaDiscovery
    | SupervisedDiscovery
    | LibraryDiscovery
    | NoDiscovery,
    Field(discriminator="method"),
]


def _refuse_few_ranks(directions: int, individual_rank: int | str, limit: int) -> None:
    if not isinstance(individual_rank, int):
        return
    if directions > individual_rank:
        raise ValueError(
            f"expected no more directions than individual_rank ({individual_rank}), got"
            f" {directions}"
        )
    if individual_rank > limit:
        raise ValueError(
            f"expected individual_rank of at most {limit} with this factor_rank, got"
            f" {individual_rank}"
        )
