"""What a network predicts without and with an editor that is being trained: gradient reaches the
editor alone, the frozen network is never changed.

Shape suffixes: B examples, each of a timestep of its own; L, Y, X of the latent.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lib.denoiser import Denoiser
from lib.models.unet_denoiser import UNetDenoiser
from lib.rectifier.hypernetwork import Rectifier
from lib.rectifier.rectified import rectified_noise


class Noises(NamedTuple):
    """Noise predictions (B, L, Y, X)."""

    plain_BLYX: Tensor
    """Of the frozen network, without gradient."""
    edited_BLYX: Tensor


class EditedNoise(Protocol):
    """An `nn.Module` whose parameters are those of the editor."""

    def __call__(self, x_BLYX: Tensor, t_B: Tensor, x0_BLYX: Tensor) -> Noises:
        """At x_t, of images whose clean latent is `x0_BLYX`."""
        ...


class ShiftedNoise(nn.Module):
    """Of an editor that shifts h: `shift` maps (h_BCYX, t_B) to delta h. The encoder half runs
    once; only the decoder half is differentiated.
    """

    def __init__(self, denoiser: Denoiser, shift: nn.Module) -> None:
        super().__init__()
        self._denoiser = denoiser
        self.editor = shift

    def forward(self, x_BLYX: Tensor, t_B: Tensor, x0_BLYX: Tensor) -> Noises:
        """See `EditedNoise`."""
        with torch.no_grad():
            point = self._denoiser.encode(x_BLYX, t_B)
        shift_BCYX = self.editor(point.h_BCYX, t_B)
        return Noises(point.eps_BLYX, self._denoiser.decode(point, point.h_BCYX + shift_BCYX))


class TunedNoise(nn.Module):
    """Of other weights of the same network: `tuned` runs `network`, which is trained."""

    def __init__(self, denoiser: Denoiser, tuned: Denoiser, network: nn.Module) -> None:
        super().__init__()
        self._denoiser = denoiser
        self._tuned = tuned
        self.editor = network

    def forward(self, x_BLYX: Tensor, t_B: Tensor, x0_BLYX: Tensor) -> Noises:
        """See `EditedNoise`."""
        with torch.no_grad():
            plain_BLYX = self._denoiser.predict(x_BLYX, t_B)
        return Noises(plain_BLYX, self._tuned.predict(x_BLYX, t_B))


class RectifiedNoise(nn.Module):
    """Of kernels modulated by a hypernetwork that sees x_0 and P_t (Hou et al. 2023)."""

    def __init__(self, denoiser: UNetDenoiser, rectifier: Rectifier) -> None:
        super().__init__()
        self._denoiser = denoiser
        self.editor = rectifier

    def forward(self, x_BLYX: Tensor, t_B: Tensor, x0_BLYX: Tensor) -> Noises:
        """See `EditedNoise`."""
        found = rectified_noise(self._denoiser, self.editor, x_BLYX, t_B, x0_BLYX)
        return Noises(found[0], found[1])
