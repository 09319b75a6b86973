"""What edits do at each node of the grid: shifts of h inside the window, moves of x_t at their own
timesteps, networks that predict in the place of the frozen one.

Shape suffixes: B edits, the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.direction import Direction
from lib.directions.direction_reach import Part, nodes_of_x, parts_of_h, reaches
from lib.editors.learned_editor import NoiseSource, ShiftFunction
from lib.sampling.grid import Grid, edited_nodes
from lib.shift import Shift

Row = Shift | None
"""An edit; None is the reconstruction."""


@dataclass(frozen=True, slots=True)
class Move:
    """What one term of an edit does to x_t at a node."""

    strength: float
    """Its share of the term's, in units of `norm`."""
    norm: float
    """Of unit noise."""
    vector_LYX: Tensor
    """Of unit norm."""


@dataclass(frozen=True, slots=True)
class EditShifts:
    """The edits' shifts on one grid, in one window."""

    grid: Grid
    window: tuple[int, int]
    """Highest and lowest timestep."""
    injection: str
    reach: str
    """window or found: see `lib.directions.direction_reach.parts_of_h`."""
    unit: Mapping[int, float]
    """Timestep -> mean norm of h, the length of a shift of strength 1 and weight 1."""
    h_shape: tuple[int, int, int]
    latent_shape: tuple[int, int, int]

    @property
    def nodes(self) -> range:
        """Of the window, descending."""
        return edited_nodes(self.grid.timesteps, self.window)

    def first_node(self, shift: Shift) -> int:
        """The node at which an edit leaves the reconstruction; 0 if it never does."""
        return max((n for n in range(1, self.nodes[0] + 1) if self.changes(shift, n)), default=0)

    def changes(self, row: Row, node: int) -> bool:
        """Whether an edit does anything at a node."""
        return self.shifts(row, node) or self.stands_alone(row, node)

    def shifts(self, row: Row, node: int) -> bool:
        """Whether it shifts h there."""
        return any(self._parts(term, node) for term in _terms(row))

    def stands_alone(self, row: Row, node: int) -> bool:
        """Whether what the network predicts for the reconstruction says nothing of it there: it
        moves x_t, or another network predicts.
        """
        moves = any(node in nodes_of_x(term.direction, self.grid) for term in _terms(row))
        return moves or bool(self.networks(row, node))

    def of_h(self, rows: Sequence[Row], node: int) -> Tensor:
        """The shifts of h by directions (B, C, Y, X) at a node of the window, float32, CPU."""
        unit = self.unit[self.grid.timestep(node)]
        shift_BCYX = torch.zeros(len(rows), *self.h_shape)
        for b, row in enumerate(rows):
            for term in _terms(row):
                if not isinstance(term.direction, Direction):
                    continue
                for weight, step in self._parts(term, node):
                    length = term.strength * term.direction.unit_strength * weight * unit
                    length *= term.direction.length(step)
                    shift_BCYX[b] += length * term.direction.vector_SCYX[step]
        return shift_BCYX

    def functions(self, row: Row, node: int) -> list[tuple[ShiftFunction, float]]:
        """What shifts h depending on h there, each with its factor."""
        return [
            (term.direction.shift, term.strength * term.direction.unit_strength * weight)
            for term in _terms(row)
            if not isinstance(term.direction, Direction) and term.direction.shift is not None
            for weight, _ in self._parts(term, node)
        ]

    def networks(self, row: Row, node: int) -> list[tuple[NoiseSource, float]]:
        """What predicts in the place of the frozen network there, each with its factor."""
        t = self.grid.timestep(node)
        return [
            (term.direction.source, term.strength * term.direction.unit_strength)
            for term in _terms(row)
            if not isinstance(term.direction, Direction)
            and term.direction.source is not None
            and reaches(term.direction, self.window, t)
        ]

    def of_x(self, row: Row, node: int) -> list[Move]:
        """What moves x_t at a node, term by term. Each of a direction's S steps moves a share of
        1 / S, so that the strength is that of the whole.
        """
        found = []
        for term in _terms(row):
            if not isinstance(term.direction, Direction):
                continue
            places = nodes_of_x(term.direction, self.grid)
            share = term.strength * term.direction.unit_strength / max(len(places), 1)
            found += [
                Move(share, term.direction.h_norm, term.direction.vector_SCYX[step])
                for step, place in enumerate(places)
                if place == node
            ]
        return found

    def _parts(self, term: Shift, node: int) -> Sequence[Part]:
        window, injection, reach = self.window, self.injection, self.reach
        return parts_of_h(term.direction, self.grid, window, injection, reach).get(node, ())


def _terms(row: Row) -> Sequence[Shift]:
    return () if row is None else row.terms
