"""What directions do to images, as records: of one image, and collected over many.

Shape suffixes: C colours, P, P of a region's portrait; F factors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor

from lib.direction import Direction
from pipelines.library_sheets import SheetRow

FIRST_STRENGTH = 0.1


@dataclass(frozen=True, slots=True)
class Effect:
    """What one direction does to one image, in numbers."""

    reached: bool
    strength: float
    in_change: float
    roir: float
    """NaN where the region is the whole image."""
    linearity: float
    symmetry: float
    factors_F: Tensor
    """Change of every factor; empty without a regressor."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The same with its pictures."""

    effect: Effect
    portrait_CPP: Tensor
    """The change inside the region, float32 of unit norm; zeros where it was not reached."""
    row: SheetRow | None
    """None where the sheet has enough."""


@dataclass(slots=True)
class Effects:
    """What one direction does to many images, collected as they come."""

    direction: Direction
    tried: int = 0
    """Images."""
    found: list[Effect] = field(default_factory=list)
    inside_CPP: Tensor = field(default_factory=lambda: torch.zeros(1))
    """Sum of the portraits."""
    rows: list[SheetRow] = field(default_factory=list)

    @property
    def first(self) -> float:
        """The strength to begin the next search with."""
        strengths = [effect.strength for effect in self.found if effect.reached]
        return median(strengths) if strengths else FIRST_STRENGTH

    def add_numbers(self, measured: Measured | None) -> None:
        """One image more, without its pictures; None: the network gave NaN."""
        self.tried += 1
        if measured is not None:
            self.found.append(measured.effect)

    def add(self, measured: Measured | None) -> None:
        """One image more."""
        self.add_numbers(measured)
        if measured is None:
            return
        if measured.effect.reached:
            self.inside_CPP = self.inside_CPP + measured.portrait_CPP
        if measured.row is not None:
            self.rows.append(measured.row)
