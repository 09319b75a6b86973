"""What the network predicts for a batch of edits at one node: the heart of every editing step.

Asymmetric injection (Asyrp, Kwon et al. 2023, eq. 5) shows the shifted h to the predicted x_0
alone; symmetric injection (Haas et al. 2024) to both terms of the step. Editors that change the
network itself change both.

Shape suffixes: B rows, the reconstruction first if it is among them; the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from lib.denoiser import Denoiser, Point
from lib.editing.edit_shifts import EditShifts, Row

T = TypeVar("T")


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
        x0_LYX: Tensor | None = None,
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
        self._functions = [shifts.functions(row, node) for row in rows]
        self._networks = [shifts.networks(row, node) for row in rows]
        self._x0_LYX = x0_LYX

    def __call__(self, x_BLYX: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that predicts x_0, and the noise that points back to x_t, like `x_BLYX`."""
        x_BLYX = x_BLYX.float()
        own = len(self._rows) - self._fresh
        fresh, self._fresh = self._fresh, 0  # a second call of the step sees edited rows
        forward, back = self._own(x_BLYX[:own], keeps_lead=self._keeps_lead and own > 0)
        self._keeps_lead = False
        if fresh and self.lead is not None and self._shift_BCYX is not None:
            first_BCYX = self.lead.h_BCYX.expand(fresh, -1, -1, -1)
            shifted_BCYX = first_BCYX + self._shifts_of(first_BCYX, range(own, own + fresh))
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
            eps_BLYX = forward_BLYX = self._predict(x_BLYX)
        else:
            point = self._denoiser.encode(x_BLYX, self._t)
            if keeps_lead and self._rows[0] is None:
                self.lead = point.rows(slice(0, 1))
            eps_BLYX, forward_BLYX = point.eps_BLYX, point.eps_BLYX.clone()
            if edited:
                chosen = _as_slice(edited)
                part = point.rows(chosen)
                shifted_BCYX = part.h_BCYX + self._shifts_of(part.h_BCYX, edited)
                forward_BLYX[chosen] = self._denoiser.decode(part, shifted_BCYX)
        if not any(self._networks[:count]):
            return forward_BLYX, eps_BLYX
        return self._with_networks(x_BLYX, forward_BLYX, eps_BLYX, eps_BLYX)

    def _symmetric_own(self, x_BLYX: Tensor, *, keeps_lead: bool) -> tuple[Tensor, Tensor]:
        count = len(x_BLYX)
        self.evaluations += count
        parts = []
        if keeps_lead and self._rows[0] is None:
            self.lead = self._denoiser.encode(x_BLYX[:1], self._t)
            parts.append(self.lead.eps_BLYX)
        done = len(parts)
        if count > done and any(self._active[done:count]) and self._shift_BCYX is not None:
            rows = range(done, count)

            def of_h(h_BCYX: Tensor) -> Tensor:
                return self._shifts_of(h_BCYX, rows)

            depends = any(self._functions[row] for row in rows)
            shift = of_h if depends else self._shift_BCYX[done:count]
            parts.append(self._denoiser.predict_shifted(x_BLYX[done:], self._t, shift))
        elif count > done:
            parts.append(self._predict(x_BLYX[done:]))
        eps_BLYX = torch.cat(parts) if parts else x_BLYX
        if not any(self._networks[:count]):
            return eps_BLYX, eps_BLYX
        plain_BLYX = eps_BLYX
        if any(self._active[:count]):
            plain_BLYX = self._predict(x_BLYX)
            self.evaluations += count
        return self._with_networks(x_BLYX, eps_BLYX, eps_BLYX, plain_BLYX)

    def _shifts_of(self, h_BCYX: Tensor, rows: Sequence[int]) -> Tensor:
        """What the edits of `rows` add to their h."""
        if self._shift_BCYX is None:
            return torch.zeros_like(h_BCYX)
        shift_BCYX = self._shift_BCYX[_as_slice(rows)]
        if not any(self._functions[row] for row in rows):
            return shift_BCYX
        shift_BCYX = shift_BCYX.clone()
        for own in _alike(self._functions, rows):
            delta_BCYX = own.what(h_BCYX[own.places], self._t)
            shift_BCYX[own.places] += own.factors_B111.to(h_BCYX) * delta_BCYX
        return shift_BCYX

    def _with_networks(
        self, x_BLYX: Tensor, forward_BLYX: Tensor, back_BLYX: Tensor, plain_BLYX: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Both terms of the step with what other networks predict more than the frozen one, times
        the strength: eps + s (eps' - eps).
        """
        if self._x0_LYX is None:
            raise ValueError("editors that change the network need the image that is edited")
        forward_BLYX, back_BLYX = forward_BLYX.clone(), back_BLYX.clone()
        for own in _alike(self._networks, range(len(x_BLYX))):
            places = own.places
            eps_BLYX = own.what.noise(x_BLYX[places], self._t, self._x0_LYX)
            self.evaluations += own.what.evaluations * len(places)
            more_BLYX = own.factors_B111.to(x_BLYX) * (eps_BLYX - plain_BLYX[places])
            forward_BLYX[places] += more_BLYX
            back_BLYX[places] += more_BLYX
        return forward_BLYX, back_BLYX

    def _predict(self, x_BLYX: Tensor) -> Tensor:
        return self._denoiser.predict(x_BLYX, self._t) if len(x_BLYX) else x_BLYX


@dataclass(frozen=True, slots=True)
class _Own(Generic[T]):
    """The rows of a batch to which one editor belongs."""

    what: T
    places: list[int]
    """Among the rows that were asked about."""
    factors_B111: Tensor


def _alike(found: Sequence[Sequence[tuple[T, float]]], rows: Sequence[int]) -> list[_Own[T]]:
    """Every editor of some rows once, with the rows that it edits: one pass serves them all."""
    parts: dict[int, tuple[T, dict[int, float]]] = {}
    for place, row in enumerate(rows):
        for what, factor in found[row]:
            _, factors = parts.setdefault(id(what), (what, {}))
            factors[place] = factors.get(place, 0.0) + factor
    return [
        _Own(what, list(factors), torch.tensor(list(factors.values())).view(-1, 1, 1, 1))
        for what, factors in parts.values()
    ]


def _as_slice(rows: Sequence[int]) -> slice | list[int]:
    """Neighbouring rows as a slice, which copies nothing."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return slice(rows[0], rows[-1] + 1)
    return list(rows)
