"""Classifier-free guidance as a denoiser of two, the conditional and the unconditional branch over
one network.

eps = eps_u + g (eps_c - eps_u): eq. 6 of Ho & Salimans (2022) with w = g - 1. h is that of the
conditional branch; a shift of it is added to h of both.

Shape suffixes: as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from torch import Tensor

from lib.denoiser import Captured, Denoiser, Point, Shifting, Timestep

_WITH, _WITHOUT, _H = "with/", "without/", "h"
"""Prefixes of the captured outputs of the branches; h of the unconditional one beside them."""


class GuidedDenoiser:
    """Two passes an evaluation, one of each branch."""

    def __init__(self, conditional: Denoiser, unconditional: Denoiser, scale: float) -> None:
        self._conditional = conditional
        self._unconditional = unconditional
        self._scale = scale
        self.passes = conditional.passes + unconditional.passes
        self.device = conditional.device
        self.image_size = conditional.image_size
        self.latent_shape = conditional.latent_shape
        self.h_shape = conditional.h_shape
        self.up_blocks = conditional.up_blocks

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """As the branches have it."""
        return self._conditional.latent(image_BCHW)

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """As the branches have it."""
        return self._conditional.image(latent_BLYX)

    def predict(self, x_BLYX: Tensor, t: Timestep) -> Tensor:
        """Guided eps(x_t, t)."""
        return self._guided(
            self._conditional.predict(x_BLYX, t), self._unconditional.predict(x_BLYX, t)
        )

    def predict_shifted(self, x_BLYX: Tensor, t: Timestep, shift: Shifting) -> Tensor:
        """Guided eps with the shift in both branches."""
        return self._guided(
            self._conditional.predict_shifted(x_BLYX, t, shift),
            self._unconditional.predict_shifted(x_BLYX, t, shift),
        )

    def encode(self, x_BLYX: Tensor, t: Timestep) -> Point:
        """Two passes; the point holds what both branches captured."""
        with_ = self._conditional.encode(x_BLYX, t)
        without = self._unconditional.encode(x_BLYX, t)
        captured: dict[str, Captured] = {_WITHOUT + _H: without.h_BCYX}
        captured |= {_WITH + name: value for name, value in with_.encoder.items()}
        captured |= {_WITHOUT + name: value for name, value in without.encoder.items()}
        eps_BLYX = self._guided(with_.eps_BLYX, without.eps_BLYX)
        return Point(x_BLYX, t, with_.h_BCYX, eps_BLYX, captured)

    def decode(self, point: Point, h_BCYX: Tensor) -> Tensor:
        """Guided eps of both decoder halves, each with the same shift of its h."""
        with_, without = _branches(point)
        shift_BCYX = h_BCYX - point.h_BCYX
        return self._guided(
            self._conditional.decode(with_, h_BCYX),
            self._unconditional.decode(without, without.h_BCYX + shift_BCYX),
        )

    def linearised(self, point: Point) -> Callable[[Tensor], Tensor]:
        """The branches' derivatives, guided: a shift of h moves both."""
        with_, without = _branches(point)
        along_with = self._conditional.linearised(with_)
        along_without = self._unconditional.linearised(without)
        return lambda tangent_KCYX: self._guided(
            along_with(tangent_KCYX), along_without(tangent_KCYX)
        )

    def bottleneck(self, x_BLYX: Tensor, t: int) -> Tensor:
        """h of the conditional branch."""
        return self._conditional.bottleneck(x_BLYX, t)

    def features(self, x_BLYX: Tensor, t: int, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Those of the conditional branch."""
        return self._conditional.features(x_BLYX, t, blocks)

    def contiguous(self) -> AbstractContextManager[None]:
        """Of the one network."""
        return self._conditional.contiguous()

    def _guided(self, with_BLYX: Tensor, without_BLYX: Tensor) -> Tensor:
        return without_BLYX + self._scale * (with_BLYX - without_BLYX)


def _branches(point: Point) -> tuple[Point, Point]:
    """The points of the two branches. Only the guided eps is kept, which decoding does not need."""

    def captured(prefix: str) -> Mapping[str, Captured]:
        return {
            name.removeprefix(prefix): value
            for name, value in point.encoder.items()
            if name.startswith(prefix) and name != _WITHOUT + _H
        }

    h_BCYX = point.encoder[_WITHOUT + _H]
    if not isinstance(h_BCYX, Tensor):
        raise TypeError("h of the unconditional branch is no tensor")
    return (
        Point(point.x_BLYX, point.t, point.h_BCYX, point.eps_BLYX, captured(_WITH)),
        Point(point.x_BLYX, point.t, h_BCYX, point.eps_BLYX, captured(_WITHOUT)),
    )
