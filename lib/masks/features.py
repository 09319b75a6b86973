"""What the network sees at every pixel of an image: maps of its up blocks, and the colours.

The image is noised with noise that follows from its own content, so that the same image is seen
alike in every run, whatever shard it lies in.

Shape suffixes: B images, C channels, H, W of the image; L, Y, X of the latent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.pixels import quantised
from lib.problems import ConfigProblem

_SIDE = 32
"""Where a network's features are of parts rather than of edges or of the whole (`shared_block`)."""


class FeatureReader:
    """Maps of some up blocks at some timesteps; the image itself is the last of them."""

    def __init__(
        self,
        denoiser: Denoiser,
        alphas_T: Sequence[float],
        timesteps: Sequence[int],
        blocks: Sequence[int],
    ) -> None:
        """`alphas_T` is alpha_bar of every training timestep.

        Raises:
            ConfigProblem: the model has no such block, or no such timestep.
        """
        beyond = [block for block in blocks if block >= denoiser.up_blocks]
        if beyond:
            raise ConfigProblem(
                f"region_model.blocks: expected numbers below {denoiser.up_blocks}, the number of"
                f" the model's up blocks, got {beyond}"
            )
        late = [t for t in timesteps if t >= len(alphas_T)]
        if late:
            raise ConfigProblem(
                f"region_model.timesteps: expected timesteps below {len(alphas_T)}, got {late}"
            )
        self._denoiser = denoiser
        self._alphas_T = alphas_T
        self._timesteps = tuple(timesteps)
        self._blocks = tuple(blocks)

    @property
    def evaluations(self) -> int:
        """Network evaluations an image; each is left behind the last block."""
        return len(self._timesteps)

    @torch.no_grad()
    def __call__(self, image_BCHW: Tensor) -> list[Tensor]:
        """Images in [-1, 1] to maps (B, C, Y, X), float32 on the denoiser's device: the blocks in
        their order at the first timestep, then at the next, and the image.
        """
        x_BLYX = self._denoiser.latent(image_BCHW)
        generators = [torch.Generator().manual_seed(content_seed(image)) for image in image_BCHW]
        maps: list[Tensor] = []
        for t in self._timesteps:
            noise_BLYX = torch.stack(
                [torch.randn(x_BLYX.shape[1:], generator=generator) for generator in generators]
            ).to(x_BLYX)
            alpha = self._alphas_T[t]
            noised_BLYX = sqrt(alpha) * x_BLYX + sqrt(1 - alpha) * noise_BLYX
            maps += self._denoiser.features(noised_BLYX, t, self._blocks)
        return [*maps, image_BCHW.to(x_BLYX)]


def shared_block(denoiser: Denoiser) -> int:
    """The up block whose map is nearest to 32 on a side, the deepest of several: where DIFT (Tang
    et al. 2023) finds the parts of Stable Diffusion's images, and where those of the embedded model
    are told apart best.
    """
    everything = range(denoiser.up_blocks)
    probe = torch.zeros(1, *denoiser.latent_shape, device=denoiser.device)
    sides = [m.shape[-1] for m in denoiser.features(probe, 0, everything)]
    return min(everything, key=lambda block: (abs(sides[block] - _SIDE), block))


def content_seed(image_CHW: Tensor) -> int:
    """A seed (63 bits) that follows from an image in [-1, 1] at 8 bits a channel."""
    data = quantised(image_CHW).cpu().contiguous().numpy().tobytes()
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big") >> 1
