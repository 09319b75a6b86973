"""The frozen network with a rectifier: for training, and as the denoiser of one image.

The encoder half is not modulated, so it runs once: the frozen network's pass gives P_t, from which
the kernels come, and what its encoder half gave is used again by the modulated decoder half.

Shape suffixes: as in `lib.denoiser`; K positions of a kernel, I channels in, O channels out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from lib.denoiser import Captured, Point, Shifting, Timestep
from lib.models.unet_denoiser import UNetDenoiser
from lib.rectifier.hypernetwork import Rectifier
from lib.rectifier.modulation import Factors, modulated_convolutions, modulation
from lib.sampling.ddim import predicted_x0

_IN, _OUT = "rectifier.in.", "rectifier.out."
"""How a point names the factors of its examples."""


class RectifiedNoises(NamedTuple):
    """Noise predictions (B, L, Y, X), and h of the modulated network."""

    plain_BLYX: Tensor
    rectified_BLYX: Tensor
    h_BCYX: Tensor
    point: Point
    """Of the frozen network."""
    factors: Mapping[str, Factors]


def rectified_noise(
    denoiser: UNetDenoiser, rectifier: Rectifier, x_BLYX: Tensor, t_B: Tensor, x0_BLYX: Tensor
) -> RectifiedNoises:
    """eps of the frozen network and of the one with kernels theta (1 + R(x_0, P_t, t)), of examples
    with timesteps and clean latents of their own; gradient reaches the rectifier alone.
    """
    with torch.no_grad():
        point = denoiser.encode(x_BLYX, t_B)
        p_BLYX = predicted_x0(x_BLYX, point.eps_BLYX, denoiser.alpha(t_B))
    factors = rectifier(x0_BLYX, p_BLYX.clamp(-2, 2), t_B)
    with modulation(modulated_convolutions(denoiser.network), factors):
        eps_BLYX, h_BCYX = denoiser.again(point)
    return RectifiedNoises(point.eps_BLYX, eps_BLYX, h_BCYX, point, factors)


class RectifiedDenoiser:
    """A `lib.denoiser.Denoiser` of edits of one image, whose clean latent is `x0_LYX`.

    A prediction is the frozen network's pass and a modulated decoder half: `passes` is 2. h is that
    of the modulated network; a point carries the factors of its rows.
    """

    passes = 2

    def __init__(self, denoiser: UNetDenoiser, rectifier: Rectifier, x0_LYX: Tensor) -> None:
        self._denoiser = denoiser
        self._rectifier = rectifier
        self._x0_LYX = x0_LYX
        self._convolutions = modulated_convolutions(denoiser.network)
        self.device = denoiser.device
        self.image_size = denoiser.image_size
        self.latent_shape = denoiser.latent_shape
        self.h_shape = denoiser.h_shape
        self.up_blocks = denoiser.up_blocks

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """As the frozen network has it."""
        return self._denoiser.latent(image_BCHW)

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """As the frozen network has it."""
        return self._denoiser.image(latent_BLYX)

    def predict(self, x_BLYX: Tensor, t: Timestep) -> Tensor:
        """eps of the modulated network."""
        return self._noises(x_BLYX, t).rectified_BLYX

    def predict_shifted(self, x_BLYX: Tensor, t: Timestep, shift: Shifting) -> Tensor:
        """The same with a shift of the modulated h."""
        point = self.encode(x_BLYX, t)
        more_BCYX = shift if isinstance(shift, Tensor) else shift(point.h_BCYX)
        return self.decode(point, point.h_BCYX + more_BCYX)

    def encode(self, x_BLYX: Tensor, t: Timestep) -> Point:
        """One prediction with capture."""
        found = self._noises(x_BLYX, t)
        captured: dict[str, Captured] = dict(found.point.encoder)
        captured |= {_IN + name: each.in_BKI for name, each in found.factors.items()}
        captured |= {_OUT + name: each.out_BKO for name, each in found.factors.items()}
        return Point(x_BLYX, t, found.h_BCYX, found.rectified_BLYX, captured)

    def decode(self, point: Point, h_BCYX: Tensor) -> Tensor:
        """eps of the modulated decoder half."""
        plain, factors = _split(point, len(h_BCYX))
        with modulation(self._convolutions, factors):
            return self._denoiser.decode(plain, h_BCYX)

    def linearised(self, point: Point) -> Callable[[Tensor], Tensor]:
        """Not known with modulated kernels; raises NotImplementedError."""
        raise NotImplementedError("directions are found in the frozen network")

    def bottleneck(self, x_BLYX: Tensor, t: int) -> Tensor:
        """h of the modulated network."""
        return self._noises(x_BLYX, t).h_BCYX

    def features(self, x_BLYX: Tensor, t: int, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Those of the frozen network."""
        return self._denoiser.features(x_BLYX, t, blocks)

    def contiguous(self) -> AbstractContextManager[None]:
        """As the frozen network has it."""
        return self._denoiser.contiguous()

    def _noises(self, x_BLYX: Tensor, t: Timestep) -> RectifiedNoises:
        t_B = torch.as_tensor(t, device=self.device).expand(len(x_BLYX))
        x0_BLYX = self._x0_LYX.expand_as(x_BLYX).to(x_BLYX)
        return rectified_noise(self._denoiser, self._rectifier, x_BLYX, t_B, x0_BLYX)


def _split(point: Point, batch: int) -> tuple[Point, dict[str, Factors]]:
    """The point of the frozen network, and the factors of `batch` rows of h."""

    def of(name: str) -> Tensor:
        value = point.encoder[name]
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is no tensor")
        return value if len(value) == batch else value.expand(batch, -1, -1)

    names = [n.removeprefix(_IN) for n in point.encoder if n.startswith(_IN)]
    plain = {n: v for n, v in point.encoder.items() if not n.startswith((_IN, _OUT))}
    frozen = Point(point.x_BLYX, point.t, point.h_BCYX, point.eps_BLYX, plain)
    return frozen, {name: Factors(of(_IN + name), of(_OUT + name)) for name in names}
