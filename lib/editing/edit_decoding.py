"""Decoding one latent unedited and with every edit, sharing all that is the same.

An edit is the reconstruction until it first acts, so it joins the batch there; where it joins, the
network's encoder half has run already, and only the decoder half runs for it. Nothing above the
window is computed at all.

Shape suffixes: S states of the sampler, B rows of a batch; the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lib.denoiser import Denoiser, Point
from lib.editing.edit_shifts import EditShifts, Row
from lib.editing.region_guard import guarded
from lib.editing.steering import Steering
from lib.editing.x_guidance import XEdit
from lib.sampling.sampler import Latent, Sampler
from lib.shift import Shift


@dataclass(frozen=True, slots=True)
class Decoded:
    """Clean latents, and what they cost."""

    x_BLYX: Tensor
    """The reconstruction, then the edits in their order."""
    evaluations: int
    """Of the network; a pass of the decoder half alone counts as one."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the edits of one image are decoded with."""

    denoiser: Denoiser
    x0_LYX: Tensor | None


@dataclass(frozen=True, slots=True)
class _Lead:
    """The reconstruction's way down, for the edits that leave it later."""

    states: dict[int, Tensor] = field(default_factory=dict)
    """Node -> (S, 1, L, Y, X)."""
    points: dict[int, Point] = field(default_factory=dict)
    """Node where edits of later batches join -> the network there."""


class EditDecoder:
    """Walks down the grid once for each batch of edits, the reconstruction with the first."""

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        shifts: EditShifts,
        *,
        x_edit: XEdit,
        batch_size: int,
    ) -> None:
        self._denoiser = denoiser
        self._sampler = sampler
        self._shifts = shifts
        self._x_edit = x_edit
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(
        self,
        latent: Latent,
        edits: Sequence[Shift],
        kept_EYX: Sequence[Tensor] = (),
        *,
        denoiser: Denoiser | None = None,
        x0_LYX: Tensor | None = None,
    ) -> Decoded:
        """The latents at node 0 of the reconstruction and of every edit.

        `latent` belongs to the highest node of the window. `kept_EYX`, one an edit or none at all:
        where the edit is kept, the reconstruction taken elsewhere (`lib.editing.region_guard`).
        `denoiser` stands in for the decoder's own, for this image; `x0_LYX`, its clean latent, is
        for editors that change the network.
        """
        starts = range(0, max(len(edits), 1), self._batch_size)
        batches = [range(len(edits))[i : i + self._batch_size] for i in starts]
        later = [edits[e] for batch in batches[1:] for e in batch]
        joined_later = {self._shifts.first_node(edit) for edit in later}
        seen = _Seen(denoiser or self._denoiser, x0_LYX)
        lead, spent, finals = _Lead(), 0, []
        for number, batch in enumerate(batches):
            first = number == 0
            final_BLYX, evaluations = self._walk(
                latent,
                [edits[e] for e in batch],
                [kept_EYX[e] for e in batch] if kept_EYX else [],
                lead,
                seen,
                first=first,
                shared=joined_later if first else (),
            )
            finals.append(final_BLYX)
            spent += evaluations
        return Decoded(torch.cat(finals), spent)

    def _walk(
        self,
        latent: Latent,
        edits: Sequence[Shift],
        kept_EYX: Sequence[Tensor],
        lead: _Lead,
        seen: _Seen,
        *,
        first: bool,
        shared: Collection[int],
    ) -> tuple[Tensor, int]:
        """The rows of one batch at node 0, the reconstruction's only if it is the first; and the
        evaluations spent.
        """
        joins = [self._shifts.first_node(edit) for edit in edits]
        states_SBLYX = latent.states_SLYX[:, None] if first else latent.states_SLYX[:, None][:, :0]
        present: list[int | None] = [None] if first else []
        spent, top = 0, self._shifts.nodes[0]
        if first:
            lead.states[top] = states_SBLYX
        for node in range(top, 0, -1):
            joining = [i for i, join in enumerate(joins) if join == node]
            # Of those that stand alone, the network's reconstruction pass says nothing.
            joining.sort(key=lambda i: not self._shifts.stands_alone(edits[i], node))
            fresh = sum(not self._shifts.stands_alone(edits[i], node) for i in joining)
            states_SBLYX = torch.cat(
                [states_SBLYX, lead.states[node].expand(-1, len(joining), -1, -1, -1)], dim=1
            )
            present += joining
            if not present:
                continue
            rows: list[Row] = [None if i is None else edits[i] for i in present]
            states_SBLYX, asked = self._moved(states_SBLYX, rows, node, seen, alike=len(joining))
            steering = Steering(
                seen.denoiser,
                self._shifts,
                node,
                rows,
                fresh=fresh,
                lead=lead.points.get(node),
                keeps_lead=node in shared,
                x0_LYX=seen.x0_LYX,
            )
            grid, noise_LYX = self._shifts.grid, latent.noises.get(node)
            states_SBLYX = self._sampler.step(steering, grid, node, states_SBLYX, noise_LYX)
            spent += asked + steering.evaluations
            if node in shared and steering.lead is not None:
                lead.points[node] = steering.lead
            if first:
                lead.states[node - 1] = states_SBLYX[:, :1]
            if kept_EYX:
                ones_YX = torch.ones_like(kept_EYX[0])
                mask_BYX = torch.stack([ones_YX if i is None else kept_EYX[i] for i in present])
                states_SBLYX = guarded(states_SBLYX, lead.states[node - 1], mask_BYX)
        unmoved = [i for i, join in enumerate(joins) if join == 0]
        states_SBLYX = torch.cat(
            [states_SBLYX, lead.states[0].expand(-1, len(unmoved), -1, -1, -1)], dim=1
        )
        order = {i: row for row, i in enumerate([*present, *unmoved])}
        wanted = [*([None] if first else []), *range(len(edits))]
        return states_SBLYX[0, [order[i] for i in wanted]].float(), spent

    def _moved(
        self, states_SBLYX: Tensor, rows: Sequence[Row], node: int, seen: _Seen, *, alike: int
    ) -> tuple[Tensor, int]:
        """The states with directions of x applied, and the evaluations spent; the last `alike` rows
        are still the reconstruction.
        """
        moves = [self._shifts.of_x(row, node) for row in rows]
        if not any(moves):
            return states_SBLYX, 0
        t = self._shifts.grid.timestep(node)
        moved = self._x_edit(
            lambda x: seen.denoiser.predict(x, t), states_SBLYX[0], moves, alike=alike
        )
        return states_SBLYX + moved.move_BLYX, moved.evaluations
