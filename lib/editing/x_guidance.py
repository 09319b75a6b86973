"""How a direction of x is applied: x_t moved along it once, or led along it by the network's own
noise predictions.

Shape suffixes: B rows, M moves; the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import copysign
from typing import Protocol

import torch
from torch import Tensor

from lib.editing.edit_shifts import Move

Predict = Callable[[Tensor], Tensor]
"""x_BLYX -> eps at one timestep."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What the edits add to x_t, and what it cost."""

    move_BLYX: Tensor
    evaluations: int


class XEdit(Protocol):
    """A way to apply directions of x."""

    def __call__(
        self, predict: Predict, x_BLYX: Tensor, moves: Sequence[Sequence[Move]], *, alike: int
    ) -> Moved:
        """Apply the moves of each row; the last `alike` rows are one and the same x."""
        ...


@dataclass(frozen=True, slots=True)
class Along:
    """x' = x + strength |unit noise| v: one step along the direction, as LOCO Edit (Chen et al.
    2024, algorithm 1).
    """

    def __call__(
        self, predict: Predict, x_BLYX: Tensor, moves: Sequence[Sequence[Move]], *, alike: int
    ) -> Moved:
        """See `XEdit`; the network is not asked."""
        move_BLYX = torch.zeros_like(x_BLYX, dtype=torch.float32, device="cpu")
        for b, row in enumerate(moves):
            for move in row:
                move_BLYX[b] += move.strength * move.norm * move.vector_LYX
        return Moved(move_BLYX.to(x_BLYX.device), 0)


@dataclass(frozen=True, slots=True)
class Guidance:
    """x' = x + s (eps(x + d v) - eps(x)), repeated: the x-space guidance of Park et al. (2023,
    "Understanding the latent space of diffusion models through the lens of Riemannian geometry",
    section 4).

    The sign of an edit's strength turns v, its size multiplies s; several directions add their
    differences. Two evaluations a row and step, but one eps(x) for all rows that begin alike.
    """

    scale: float
    """s of strength 1."""
    steps: int
    reach: float
    """d, the length of the probing step."""

    def __call__(
        self, predict: Predict, x_BLYX: Tensor, moves: Sequence[Sequence[Move]], *, alike: int
    ) -> Moved:
        """See `XEdit`."""
        rows = [b for b, row in enumerate(moves) if row]
        places = [place for place, b in enumerate(rows) for _ in moves[b]]
        flat = [move for b in rows for move in moves[b]]
        probe_MLYX = torch.stack([m.vector_LYX * copysign(self.reach, m.strength) for m in flat])
        scale_M111 = torch.tensor([abs(m.strength) * self.scale for m in flat]).view(-1, 1, 1, 1)
        probe_MLYX, scale_M111 = probe_MLYX.to(x_BLYX.device), scale_M111.to(x_BLYX.device)
        led_BLYX, spent = x_BLYX[rows], 0
        common = sum(b >= len(moves) - alike for b in rows)
        for _ in range(self.steps):
            own = len(rows) - common
            asked_BLYX = led_BLYX[: own + min(common, 1)]
            both_BLYX = torch.cat([asked_BLYX, led_BLYX[places] + probe_MLYX]).float()
            spent += len(both_BLYX)
            eps_BLYX = predict(both_BLYX)
            at = [min(place, len(asked_BLYX) - 1) for place in places]
            pull_MLYX = scale_M111 * (eps_BLYX[len(asked_BLYX) :] - eps_BLYX[at])
            index_M = torch.tensor(places, device=x_BLYX.device)
            led_BLYX = led_BLYX.index_add(0, index_M, pull_MLYX.to(led_BLYX.dtype))
            common = 0  # from here on they differ
        move_BLYX = torch.zeros_like(x_BLYX)
        move_BLYX[rows] = led_BLYX - x_BLYX[rows]
        return Moved(move_BLYX, spent)
