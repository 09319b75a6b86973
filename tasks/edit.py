"""The edit stage: decode every latent once per (direction, strength), batched over the edits of
one image.

A direction of h shifts the bottleneck at every edited step; one of x moves x_t itself, once.
Shape suffixes: B edits, the reconstruction first; the rest as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.ddim import transfer
from lib.denoiser import Denoiser
from lib.direction import WHOLE, Direction, vector_at
from lib.direction_reach import nodes_of_x, shifts_h
from lib.grid import Grid, edited_nodes
from lib.injection import asymmetric_step, change, psnr, step_weight, symmetric_step
from lib.records import Discovered, Edit, Edited, Failure, Region
from lib.regions import make_region


@dataclass(frozen=True, slots=True)
class Shift:
    """What one decode adds: a direction at a strength, in units of the model's mean norm of h, or
    of the norm of unit noise for a direction of x.
    """

    direction: Direction
    strength: float


class Editor:
    """Applies every direction at every strength inside the window; the reconstruction rides along
    as row 0.

    Nothing above the window is computed, and the network runs once at the first node for all
    edits. A direction with a window of its own is shifted only where both windows agree.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        grid: Grid,
        *,
        window: tuple[int, int],
        injection: str,
        strengths: Sequence[float],
        batch_size: int,
        h_norms: Mapping[int, float],
    ) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._nodes = edited_nodes(grid.timesteps, window)
        self._injection = injection
        self._strengths = tuple(strengths)
        self._batch_size = batch_size
        self._h_norms = h_norms
        self._weight = step_weight(injection, grid.num_steps)

    def __call__(
        self, items: Iterable[Discovered], reject: Callable[[Failure], None]
    ) -> Iterator[Edited]:
        """Rejects as `not_finite` a sample of which any edit is not finite."""
        for discovered in items:
            inverted = discovered.segmented.inverted
            shifts = [Shift(d, s) for d in discovered.directions for s in self._strengths]
            images_BCHW = self.decode(inverted.start_LYX, shifts)
            if images_BCHW is None:
                sample = inverted.sample
                message = "the network gave NaN or infinity while this image was edited"
                reject(
                    Failure(sample.shard, sample.index, sample.key, "edit", "not_finite", message)
                )
                continue
            yield self._measured(discovered, shifts, images_BCHW)

    @torch.no_grad()
    def decode(self, start_LYX: Tensor, shifts: Sequence[Shift]) -> Tensor | None:
        """Images (1 + len(shifts), C, H, W) as uint8 on the CPU, the reconstruction first; None if
        not finite.

        `start_LYX` is x_t at the highest node of the window.
        """
        node = self._nodes[0]
        parts = self._parts(shifts)
        shared = None
        if any(self._shares(part) for part in parts):
            shared = self._denoiser.encode(start_LYX[None], self._grid.timestep(node))
        images = []
        for part in parts:
            if shared is not None and self._shares(part):
                shift_BCYX = self._shift(part, node)
                x_BLYX = asymmetric_step(self._denoiser, self._grid, node, shared, shift_BCYX)
            else:
                x_BLYX = self._step(start_LYX.expand(len(part), -1, -1, -1), part, node)
            for lower in range(node - 1, 0, -1):
                x_BLYX = self._step(x_BLYX, part, lower)
            if not bool(torch.isfinite(x_BLYX).all()):
                return None
            images.append(quantised(self._denoiser.image(x_BLYX)).cpu())
        return torch.cat(images)

    @property
    def edited_timesteps(self) -> tuple[int, int]:
        """The highest and the lowest timestep at which h is shifted."""
        return self._grid.timestep(self._nodes[0]), self._grid.timestep(self._nodes[-1])

    @property
    def shared_evaluations(self) -> int:
        """Network evaluations an image that its edits share."""
        return 1 if self._injection == "asymmetric" else 0

    @property
    def evaluations(self) -> int:
        """Network evaluations an edit or reconstruction; a decoder-only pass counts as one."""
        both = len(self._nodes) if self._injection == "asymmetric" else 0
        return self._nodes[0] + both - self.shared_evaluations

    def spent(self, shifts: Sequence[Shift]) -> int:
        """Network evaluations of `decode` for these shifts."""
        parts = self._parts(shifts)
        own = [part for part in parts if not self._shares(part)]
        shared = self.shared_evaluations if len(own) < len(parts) else 0
        alone = self.shared_evaluations * sum(map(len, own))
        return shared + alone + self.evaluations * (1 + len(shifts))

    def _parts(self, shifts: Sequence[Shift]) -> list[Sequence[Shift | None]]:
        rows: list[Shift | None] = [None, *shifts]
        return [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]

    def _shares(self, rows: Sequence[Shift | None]) -> bool:
        """Whether all rows are still the same x_t when the network first sees them."""
        return self._injection == "asymmetric" and not self._moving(rows, self._nodes[0])

    def _moving(self, rows: Sequence[Shift | None], node: int) -> bool:
        return any(r is not None and node in nodes_of_x(r.direction, self._grid) for r in rows)

    def _moved(self, x_BLYX: Tensor, rows: Sequence[Shift | None], node: int) -> Tensor:
        """x_t plus the rows' directions of x that belong to this node; each of S steps moves a
        share of 1 / S, so that the strength is that of the whole.
        """
        if not self._moving(rows, node):
            return x_BLYX
        moves_BLYX = torch.zeros((len(rows), *self._denoiser.latent_shape))
        for row, shift in enumerate(rows):
            if shift is not None:
                found = nodes_of_x(shift.direction, self._grid)
                unit = shift.strength * shift.direction.h_norm / max(1, len(found))
                for step, place in enumerate(found):
                    if place == node:
                        moves_BLYX[row] += unit * shift.direction.vector_SCYX[step]
        return x_BLYX + moves_BLYX.to(x_BLYX.device)

    def _step(self, x_BLYX: Tensor, rows: Sequence[Shift | None], node: int) -> Tensor:
        t = self._grid.timestep(node)
        x_BLYX = self._moved(x_BLYX, rows, node)
        if node not in self._nodes:
            eps_BLYX = self._denoiser.predict(x_BLYX, t)
            return transfer(x_BLYX, eps_BLYX, self._grid.alphas[node], self._grid.alphas[node - 1])
        shift_BCYX = self._shift(rows, node)
        if self._injection == "symmetric":
            return symmetric_step(self._denoiser, self._grid, node, x_BLYX, shift_BCYX)
        point = self._denoiser.encode(x_BLYX, t)
        return asymmetric_step(self._denoiser, self._grid, node, point, shift_BCYX)

    def _shift(self, rows: Sequence[Shift | None], node: int) -> Tensor:
        t = self._grid.timestep(node)
        unit = self._weight * self._h_norms[t]
        zero_CYX = torch.zeros(self._denoiser.h_shape)
        shifts = [
            row.strength * unit * vector_at(row.direction, t)
            if row is not None and shifts_h(row.direction, t)
            else zero_CYX
            for row in rows
        ]
        return torch.stack(shifts).to(self._denoiser.device)

    def _measured(
        self, discovered: Discovered, shifts: Sequence[Shift], images_BCHW: Tensor
    ) -> Edited:
        sample = discovered.segmented.inverted.sample
        regions: dict[str, Region] = {r.name: r for r in discovered.segmented.regions}
        if any(shift.direction.region == WHOLE for shift in shifts):
            regions[WHOLE] = make_region(WHOLE, torch.ones(images_BCHW.shape[2:]))
        floats_BCHW = images_BCHW.float() / 127.5 - 1
        reconstruction_BCHW = floats_BCHW[:1]
        edits = []
        for row, shift in enumerate(shifts, 1):
            region = regions[shift.direction.region]
            inside, outside = change(floats_BCHW[row, None], reconstruction_BCHW, region.mask_HW)
            edits.append(
                Edit(
                    region,
                    shift.direction,
                    shift.strength,
                    images_BCHW[row],
                    float(inside),
                    float(outside),
                )
            )
        return Edited(
            discovered,
            images_BCHW[0],
            psnr(floats_BCHW[0], sample.image_CHW),
            self.spent(shifts),
            tuple(edits),
        )


def quantised(image_BCHW: Tensor) -> Tensor:
    """[-1, 1] to uint8, rounded to nearest, clamped."""
    return ((image_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
