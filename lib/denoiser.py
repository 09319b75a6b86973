"""The one interface to every backbone: predict the noise, and split the network at h.

Shape suffixes: B batch, L latent channels, Y, X latent height and width; C, H, W of the image; h
has its own (channel, y, x), written BCYX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import torch
from torch import Tensor

from lib.problems import ModelProblem

Captured = Tensor | tuple[Any, ...]
Timestep = int | Tensor
"""One for all examples, or (B,) int64, one for each, as in training."""
Shifting = Tensor | Callable[[Tensor], Tensor]
"""What is added to h: (B, C, Y, X), or that as a function of h_BCYX."""


@dataclass(frozen=True, slots=True)
class Point:
    """The network at one (x_t, t): what the decoder half needs, and the unshifted prediction."""

    x_BLYX: Tensor
    t: Timestep
    h_BCYX: Tensor
    eps_BLYX: Tensor
    encoder: Mapping[str, Captured]
    """Outputs of the encoder's modules by module name."""

    def row(self, index: int) -> Point:
        """The point of one image of the batch, kept as a batch of one."""
        return self.rows(slice(index, index + 1))

    def rows(self, part: slice | list[int]) -> Point:
        """The point of some images of the batch; a slice copies nothing."""
        captured = {name: mapped(value, lambda a: a[part]) for name, value in self.encoder.items()}
        t = self.t if isinstance(self.t, int) else self.t[part]
        return Point(self.x_BLYX[part], t, self.h_BCYX[part], self.eps_BLYX[part], captured)

    def contiguous(self) -> Point:
        """The same point with everything laid out contiguously, which `vmap` asks for."""
        captured = {
            name: mapped(value, torch.Tensor.contiguous) for name, value in self.encoder.items()
        }
        h_BCYX, eps_BLYX = self.h_BCYX.contiguous(), self.eps_BLYX.contiguous()
        return Point(self.x_BLYX.contiguous(), self.t, h_BCYX, eps_BLYX, captured)


class Denoiser(Protocol):
    """A frozen noise predictor with a split at h. Everything is float32 on `device`."""

    device: torch.device
    image_size: int
    latent_shape: tuple[int, int, int]
    h_shape: tuple[int, int, int]
    passes: int
    """Network passes an evaluation: 2 with guidance."""
    up_blocks: int
    """Blocks of the decoder half, counted from the deepest."""

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """Image in [-1, 1] to the space in which the network works."""
        ...

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """The way back; not clamped."""
        ...

    def predict(self, x_BLYX: Tensor, t: Timestep) -> Tensor:
        """eps(x_t, t)."""
        ...

    def predict_shifted(self, x_BLYX: Tensor, t: Timestep, shift: Shifting) -> Tensor:
        """eps(x_t, t | h + shift) in one pass."""
        ...

    def encode(self, x_BLYX: Tensor, t: Timestep) -> Point:
        """One pass with capture."""
        ...

    def decode(self, point: Point, h_BCYX: Tensor) -> Tensor:
        """eps of the decoder half from `h`; a point of batch 1 serves any batch of h."""
        ...

    def linearised(self, point: Point) -> Callable[[Tensor], Tensor]:
        """d eps / d h at a point of batch 1: maps (K, C, Y, X) to (K, L, Y, X) without AD."""
        ...

    def bottleneck(self, x_BLYX: Tensor, t: int) -> Tensor:
        """h at (x_t, t) alone, without the decoder half; differentiable in x_t."""
        ...

    def features(self, x_BLYX: Tensor, t: int, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """What the up blocks numbered `blocks`, 0 the deepest, give at (x_t, t): each of its own
        channels and size; the forward is left behind the last of them.
        """
        ...

    def contiguous(self) -> AbstractContextManager[None]:
        """A scope in which activations are laid out contiguously, as batched derivatives need."""
        ...


def epsilon(
    output_BLYX: Tensor, x_BLYX: Tensor, alpha: float | Tensor, prediction_type: str
) -> Tensor:
    """The noise that a network's output means, for `alpha` = alpha_bar(t), of all examples or
    (B, 1, 1, 1).

    v = sqrt(alpha) eps - sqrt(1 - alpha) x_0 (Salimans & Ho 2022, eq. 11), x = sqrt(alpha) x_0 +
    sqrt(1 - alpha) eps.
    """
    if prediction_type == "epsilon":
        return output_BLYX
    if prediction_type == "v_prediction":
        return _root(alpha) * output_BLYX + _root(1 - alpha) * x_BLYX
    if prediction_type == "sample":
        return (x_BLYX - _root(alpha) * output_BLYX) / _root(1 - alpha)
    raise ModelProblem(
        "scheduler_config.json: expected prediction_type epsilon, v_prediction or sample,"
        f" got {prediction_type!r}"
    )


def _root(value: float | Tensor) -> float | Tensor:
    return value.sqrt() if isinstance(value, Tensor) else sqrt(value)


def slope(alpha: float, prediction_type: str) -> float:
    """d epsilon / d output of `epsilon`."""
    slopes = {
        "epsilon": 1.0,
        "v_prediction": sqrt(alpha),
        "sample": -sqrt(alpha) / sqrt(1 - alpha),
    }
    return slopes[prediction_type]


def mapped(value: Captured, function: Any) -> Any:
    """Apply `function` to every tensor of a captured output."""
    if isinstance(value, Tensor):
        return function(value)
    return tuple(mapped(part, function) for part in value)
