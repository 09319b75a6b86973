"""The parts of the section `edit` that say which edits are made: the plan, and SDEdit."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from lib.directions.edit_query import Entry, Selection, Term
from pipelines.config_section import Name, PositiveInt, Section, Timestep, distinct_timesteps

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{1,16}$")]
Rank = Annotated[int, Field(ge=0)]


class Selected(Section):
    """Directions, each at each strength; without any key all of them."""

    ids: tuple[Id, ...] = ()
    """Of a library: these ids, or their first digits."""
    regions: tuple[Name, ...] = ()
    """Directions of these regions (`image`: the whole of it)."""
    labels: tuple[str, ...] = ()
    """Of a library: directions with these labels."""
    methods: tuple[str, ...] = ()
    """Directions found by these methods."""
    ranks: tuple[Rank, ...] = ()
    """Directions of these ranks; 0 is the strongest of its region."""
    max_rank: PositiveInt | None = None
    """The first so many directions of every region."""
    min_score: float | None = None
    """Of a scored library: directions with at least this score."""
    max_roir: Annotated[float, Field(ge=0.0)] | None = None
    """Of a scored library: directions with at most this ROIR."""
    strengths: tuple[float, ...] = ()
    """Empty: `edit.strengths`."""

    @field_validator("strengths")
    @classmethod
    def _usable(cls, strengths: tuple[float, ...]) -> tuple[float, ...]:
        return distinct_strengths(strengths)


class Combination(Section):
    """Edits that add one direction of each selection, in every way."""

    combine: Annotated[tuple[Selected, ...], Field(min_length=2)]
    """At least two."""
    same_region: bool = False
    """Whether directions of one region may be combined, or a direction with itself."""


class EditPlan(Section):
    """Which edits are made of an image."""

    entries: Annotated[tuple[Combination | Selected, ...], Field(min_length=1)] = (Selected(),)
    """Selections of directions, and combinations `{combine: [SELECTION, SELECTION]}`."""
    sample: PositiveInt | None = None
    """So many edits of every image, chosen by its seed; without it all."""


class SdEdit(Section):
    """What SDEdit does: noise to a timestep, and denoise."""

    timesteps: Annotated[tuple[Timestep, ...], Field(min_length=1)] = (500,)
    """The nearest grid timesteps are used; each makes an edit with each noise."""
    seeds: PositiveInt = 1
    """Noises of an image."""

    @field_validator("timesteps")
    @classmethod
    def _distinct(cls, timesteps: tuple[int, ...]) -> tuple[int, ...]:
        return distinct_timesteps(timesteps)


def distinct_strengths(strengths: tuple[float, ...]) -> tuple[float, ...]:
    """The strengths themselves; raises ValueError where one is there twice, or 0."""
    if len(set(strengths)) != len(strengths) or 0.0 in strengths:
        raise ValueError(
            "expected distinct strengths, none of them 0 (the reconstruction is always made)"
        )
    return strengths


def plan_entries(plan: EditPlan, strengths: tuple[float, ...]) -> tuple[Entry, ...]:
    """The entries for `lib.directions.edit_query`; `strengths` are those of selections without
    their own.
    """
    return tuple(
        Entry(tuple(_term(part, strengths) for part in entry.combine), entry.same_region)
        if isinstance(entry, Combination)
        else Entry((_term(entry, strengths),))
        for entry in plan.entries
    )


def _term(selected: Selected, strengths: tuple[float, ...]) -> Term:
    asked = {name: value for name, value in selected if name != "strengths"}
    return Term(Selection(**asked), selected.strengths or strengths)
