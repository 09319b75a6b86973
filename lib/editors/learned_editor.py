"""A learned editor that is no direction, ready to be applied: what it shares with a direction, and
its network.

Shape suffixes: B rows; C, Y, X of h; in x also L, Y, X of the latent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from lib.editors.editor_record import EditorRecord


class ShiftFunction(Protocol):
    """delta h of h at a timestep: f_t."""

    def __call__(self, h_BCYX: Tensor, t: int) -> Tensor:
        """(B, C, Y, X), in units of h."""
        ...


class NoiseSource(Protocol):
    """The frozen network with an editor in it."""

    @property
    def evaluations(self) -> int:
        """Network evaluations a row; a pass of the decoder half counts as one."""
        ...

    def noise(self, x_BLYX: Tensor, t: int, x0_LYX: Tensor) -> Tensor:
        """eps (B, L, Y, X) at x_t of rows that are edits of the image with clean latent
        `x0_LYX`.
        """
        ...


@dataclass(frozen=True, slots=True)
class LearnedEditor:
    """f_t, a rectifier or other weights, to be used beside directions."""

    record: EditorRecord
    rank: int
    """Its place among the editors of its region that a run reads, from 0."""
    shift: ShiftFunction | None
    """Of an editor of h."""
    source: NoiseSource | None
    """Of an editor of the network."""

    @property
    def id(self) -> str:
        """Of the record."""
        return self.record.id

    @property
    def type(self) -> str:
        """Of the record."""
        return self.record.type

    @property
    def space(self) -> str:
        """h, or `network`."""
        return self.record.space

    @property
    def h_layer(self) -> str:
        """Of the record."""
        return self.record.h_layer

    @property
    def model(self) -> str:
        """SHA-256 of the weights."""
        return self.record.model

    @property
    def region(self) -> str:
        """Of the record."""
        return self.record.region

    @property
    def label(self) -> str | None:
        """Of the record."""
        return self.record.label

    @property
    def method(self) -> str:
        """Of the record."""
        return self.record.method

    @property
    def timesteps(self) -> tuple[int, ...]:
        """At which it was trained."""
        return self.record.timesteps

    @property
    def window(self) -> tuple[int, int]:
        """At which it should be applied."""
        return self.record.window

    @property
    def unit_strength(self) -> float:
        """Of the record."""
        return self.record.unit_strength

    @property
    def parameters(self) -> Mapping[str, Any]:
        """Of the record."""
        return self.record.parameters
