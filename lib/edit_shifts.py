"""What edits do at each node of the grid: shifts of h inside the window, moves of x_t at their own
timesteps.

Shape suffixes: B edits, the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.direction import vector_at
from lib.direction_reach import nodes_of_x, shifts_h
from lib.grid import Grid
from lib.shift import Shift

Row = Shift | None
"""An edit; None is the reconstruction."""


@dataclass(frozen=True, slots=True)
class EditShifts:
    """The edits' shifts on one grid, in one window."""

    grid: Grid
    nodes: range
    """Of the window, descending."""
    unit: Mapping[int, float]
    """Timestep -> length of the shift of h that has strength 1."""
    h_shape: tuple[int, int, int]
    latent_shape: tuple[int, int, int]

    def first_node(self, shift: Shift) -> int:
        """The node at which an edit leaves the reconstruction; 0 if it never does."""
        return max((n for n in range(1, self.nodes[0] + 1) if self.changes(shift, n)), default=0)

    def changes(self, row: Row, node: int) -> bool:
        """Whether an edit does anything at a node."""
        return self.shifts(row, node) or self.moves(row, node)

    def shifts(self, row: Row, node: int) -> bool:
        """Whether it shifts h there."""
        t = self.grid.timestep(node)
        terms = () if row is None or node not in self.nodes else row.terms
        return any(shifts_h(term.direction, t) for term in terms)

    def moves(self, row: Row, node: int) -> bool:
        """Whether it moves x_t there."""
        terms = () if row is None else row.terms
        return any(node in nodes_of_x(term.direction, self.grid) for term in terms)

    def of_h(self, rows: Sequence[Row], node: int) -> Tensor:
        """The shifts of h (B, C, Y, X) at a node of the window, float32, CPU."""
        t = self.grid.timestep(node)
        shift_BCYX = torch.zeros(len(rows), *self.h_shape)
        for b, row in enumerate(rows):
            for term in () if row is None else row.terms:
                if shifts_h(term.direction, t):
                    length = term.strength * self.unit[t]
                    shift_BCYX[b] += length * vector_at(term.direction, t)
        return shift_BCYX

    def of_x(self, rows: Sequence[Row], node: int) -> Tensor:
        """The moves of x_t (B, L, Y, X) at a node, float32, CPU. Each of a direction's S steps
        moves a share of 1 / S, so that the strength is that of the whole.
        """
        move_BLYX = torch.zeros(len(rows), *self.latent_shape)
        for b, row in enumerate(rows):
            for term in () if row is None else row.terms:
                places = nodes_of_x(term.direction, self.grid)
                for step, place in enumerate(places):
                    if place == node:
                        length = term.strength * term.direction.h_norm / len(places)
                        move_BLYX[b] += length * term.direction.vector_SCYX[step]
        return move_BLYX
