"""What one edit adds: a direction or a learned editor at a strength, alone or with others."""

from __future__ import annotations

from dataclasses import dataclass

from lib.direction import Direction
from lib.editors.learned_editor import LearnedEditor


@dataclass(frozen=True, slots=True)
class Shift:
    """A direction or learned editor at a strength, and what is added in the same decode."""

    direction: Direction | LearnedEditor
    strength: float
    """In units of the model's mean norm of h, or of the norm of unit noise for a direction of x;
    times the direction's own unit, where that is not 1. Of a learned editor 1 is what was trained.
    """
    added: tuple[Shift, ...] = ()
    """Further directions; those have nothing added themselves."""

    @property
    def terms(self) -> tuple[Shift, ...]:
        """This shift and those added to it."""
        return (self, *self.added)
