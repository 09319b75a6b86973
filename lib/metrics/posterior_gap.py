"""How well the network predicts the noise that is added to an image: the posterior gap.

Shape suffixes: B batch; L, Y, X as in `lib.denoiser`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.sampling.grid import Grid
from lib.sampling.sampler import seeded_noise

_ABOVE_ALL_NODES = 1_000_001
"""Noises are drawn as if for nodes that no grid has, so that no sampler and no SDEdit draws the
same.
"""


class PosteriorGap:
    """|De|^2 of Hou et al. (2023, arXiv 2312.15707, Table 1), by our reading of their loss:

        gap(x_0) = mean over t of |z_t - eps(x_t, t)|^2 / dim,
        x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) z_t,   z_t seeded unit noise,

    with x_0 the image as the model takes it (the latent, where there is an autoencoder) and all
    timesteps weighing 1. The mean of the true posterior q(x_(t-1) | x_t, x_0) and that of the model
    differ by a multiple of z_t - eps: where the gap is wide, the image is foreign to the model, and
    neither its reconstruction nor its edits can be trusted. Guidance, if any, is on.
    """

    def __init__(self, denoiser: Denoiser, grid: Grid, nodes: Sequence[int]) -> None:
        self._denoiser = denoiser
        self._grid = grid
        self._nodes = tuple(nodes)

    @property
    def evaluations(self) -> int:
        """Of the network, for an image."""
        return len(self._nodes) * self._denoiser.passes

    @torch.no_grad()
    def __call__(self, image_CHW: Tensor, seed: int) -> float:
        """Of an image float32 in [-1, 1]; NaN where the network gives none."""
        x0_BLYX = self._denoiser.latent(image_CHW[None])
        gaps = []
        for node in self._nodes:
            alpha = self._grid.alphas[node]
            z_BLYX = seeded_noise([seed], _ABOVE_ALL_NODES + node, x0_BLYX.shape[1:])
            z_BLYX = z_BLYX.to(x0_BLYX.device)
            x_BLYX = sqrt(alpha) * x0_BLYX + sqrt(1 - alpha) * z_BLYX
            eps_BLYX = self._denoiser.predict(x_BLYX, self._grid.timestep(node))
            gaps.append(float((z_BLYX - eps_BLYX).square().mean()))
        return sum(gaps) / len(gaps)
