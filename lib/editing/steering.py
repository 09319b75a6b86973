"""What the network predicts for a batch of edits at one node: the heart of every editing step.

Asymmetric injection (Asyrp, Kwon et al. 2023, eq. 5) shows the shifted h to the predicted x_0
alone; symmetric injection (Haas et al. 2024) to both terms of the step.

Shape suffixes: B rows, the reconstruction first if it is among them; the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.denoiser import Denoiser, Point
from lib.editing.edit_shifts import EditShifts, Row


class Steering:
    """A `lib.sampling.sampler.Steer` for one step of one batch.

    The last `fresh` rows still are the reconstruction when the step begins: the network's encoder
    half, run for that, serves them too.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        shifts: EditShifts,
        node: int,
        rows: Sequence[Row],
        *,
        fresh: int,
        lead: Point | None,
        keeps_lead: bool,
    ) -> None:
        self._denoiser = denoiser
        self._shifts = shifts
        self._symmetric = shifts.injection == "symmetric"
        self._node = node
        self._t = shifts.grid.timestep(node)
        self._rows = rows
        self._fresh = fresh
        self.lead = lead
        """The network at the reconstruction: given, or found here if `keeps_lead`."""
        self._keeps_lead = keeps_lead or fresh > 0
        self.evaluations = 0
        """Network evaluations so far; a pass of the decoder half alone counts as one."""
        self._active = [shifts.shifts(row, node) for row in rows]
        self._shift_BCYX = (
            shifts.of_h(rows, node).to(denoiser.device) if any(self._active) else None
        )

    def __call__(self, x_BLYX: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that predicts x_0, and the noise that points back to x_t, like `x_BLYX`."""
        x_BLYX = x_BLYX.float()
        own = len(self._rows) - self._fresh
        fresh, self._fresh = self._fresh, 0  # a second call of the step sees edited rows
        forward, back = self._own(x_BLYX[:own], keeps_lead=self._keeps_lead and own > 0)
        self._keeps_lead = False
        if fresh and self.lead is not None and self._shift_BCYX is not None:
            shifted_BCYX = self.lead.h_BCYX + self._shift_BCYX[own:]
            edited_BLYX = self._denoiser.decode(self.lead, shifted_BCYX)
            self.evaluations += fresh
            plain_BLYX = self.lead.eps_BLYX.expand_as(edited_BLYX)
            forward = torch.cat([forward, edited_BLYX])
            back = torch.cat([back, edited_BLYX if self._symmetric else plain_BLYX])
        return forward, back

    def _own(self, x_BLYX: Tensor, *, keeps_lead: bool) -> tuple[Tensor, Tensor]:
        """Of the rows that have left the reconstruction, and of the reconstruction itself."""
        count = len(x_BLYX)
        if self._symmetric:
            return self._symmetric_own(x_BLYX, keeps_lead=keeps_lead)
        edited = [b for b in range(count) if self._active[b]]
        self.evaluations += count + len(edited)
        if not edited and not keeps_lead:
            eps_BLYX = self._predict(x_BLYX)
            return eps_BLYX, eps_BLYX
        point = self._denoiser.encode(x_BLYX, self._t)
        if keeps_lead and self._rows[0] is None:
            self.lead = point.rows(slice(0, 1))
        forward_BLYX = point.eps_BLYX.clone()
        if edited and self._shift_BCYX is not None:
            chosen = _as_slice(edited)
            part = point.rows(chosen)
            shifted_BCYX = part.h_BCYX + self._shift_BCYX[:count][chosen]
            forward_BLYX[chosen] = self._denoiser.decode(part, shifted_BCYX)
        return forward_BLYX, point.eps_BLYX

    def _symmetric_own(self, x_BLYX: Tensor, *, keeps_lead: bool) -> tuple[Tensor, Tensor]:
        count = len(x_BLYX)
        self.evaluations += count
        parts = []
        if keeps_lead and self._rows[0] is None:
            self.lead = self._denoiser.encode(x_BLYX[:1], self._t)
            parts.append(self.lead.eps_BLYX)
        done = len(parts)
        if count > done and any(self._active[done:count]) and self._shift_BCYX is not None:
            shift_BCYX = self._shift_BCYX[done:count]
            parts.append(self._denoiser.predict_shifted(x_BLYX[done:], self._t, shift_BCYX))
        elif count > done:
            parts.append(self._predict(x_BLYX[done:]))
        eps_BLYX = torch.cat(parts) if parts else x_BLYX
        return eps_BLYX, eps_BLYX

    def _predict(self, x_BLYX: Tensor) -> Tensor:
        return self._denoiser.predict(x_BLYX, self._t) if len(x_BLYX) else x_BLYX


def _as_slice(rows: Sequence[int]) -> slice | list[int]:
    """Neighbouring rows as a slice, which copies nothing."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return list(rows)
