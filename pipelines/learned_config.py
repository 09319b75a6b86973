"""The section `learned` of a config: learned editors that are applied beside what is discovered."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from pipelines.config_section import Section
from pipelines.edit_plan_config import Id


class Learned(Section):
    """Editors of a training or of a library; `edit.plan` selects and combines them by label, type
    of method, region or id, as it does directions.
    """

    path: str
    """The folder of a training, a library, or `embedded` for those of the face model in this
    repository.
    """
    labels: tuple[str, ...] = ()
    """Only editors of these names; empty: all that edit."""
    ids: tuple[Id, ...] = ()
    """Only these, by their first digits."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.labels)) != len(self.labels) or len(set(self.ids)) != len(self.ids):
            raise ValueError("expected every label and id once")
        return self
