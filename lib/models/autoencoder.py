"""The way between images and the space in which a U-Net works: none at all, or an autoencoder.

Shape suffixes: as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from lib.problems import ModelProblem

_UNSCALED, _STABLE_DIFFUSION = 1.0, 0.18215


class ImageSpace(Protocol):
    """Images in [-1, 1] to latents and back."""

    @property
    def factor(self) -> int:
        """Side of an image over the side of its latent."""
        ...

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """Deterministic: the same image has the same latent."""
        ...

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """The way back; not clamped."""
        ...


@dataclass(frozen=True, slots=True)
class Pixels:
    """Pixels are the latents."""

    factor: int = 1

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """The image itself."""
        return image_BCHW

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """The latent itself."""
        return latent_BLYX


PIXELS = Pixels()


class LatentSpace:
    """Behind a `VQModel` or an `AutoencoderKL` of diffusers, in float32.

    VQ latents are taken before quantisation, which decoding does (Rombach et al. 2022, sec. 3.2);
    of a KL posterior the mean is taken, never a sample. Latents are z = (encoded - shift) * scale,
    with `scaling_factor`, `shift_factor`, `latents_mean` and `latents_std` of config.json.

    A config without scaling_factor is older than the key. Then an AutoencoderKL has 0.18215, with
    which Stable Diffusion was trained, and a VQModel has 1: the VQ models of latent diffusion were
    trained on unscaled latents, and the 0.18215 that diffusers' class has by default is wrong for
    them.
    """

    def __init__(self, autoencoder: Any, config: Mapping[str, Any]) -> None:
        self._autoencoder = autoencoder.eval().requires_grad_(False)
        self._quantises = type(autoencoder).__name__ == "VQModel"
        self.factor = int(2 ** (len(autoencoder.config.block_out_channels) - 1))
        unnamed = _UNSCALED if self._quantises else _STABLE_DIFFUSION
        scale = config.get("scaling_factor", unnamed)
        device = next(autoencoder.parameters()).device

        def constant(key: str, default: float) -> Tensor:
            value = config.get(key)
            return torch.tensor(default if value is None else value, device=device).view(-1, 1, 1)

        try:
            std_L11 = constant("latents_std", 1.0)
            self._scale_L11 = float(scale) / std_L11
            self._shift_L11 = constant("shift_factor", 0.0) + constant("latents_mean", 0.0)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ModelProblem(
                "the autoencoder's config.json: expected scaling_factor and shift_factor to be"
                f" numbers, latents_mean and latents_std lists of numbers: {error}"
            ) from error
        if not bool(torch.isfinite(self._scale_L11).all() and (self._scale_L11 > 0).all()):
            raise ModelProblem(
                "the autoencoder's config.json: expected a positive scaling_factor and latents_std,"
                f" got {scale} and {config.get('latents_std')}"
            )

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """Before quantisation, or the posterior's mean; shifted and scaled."""
        encoded = self._autoencoder.encode(image_BCHW)
        mean_BLYX = encoded.latents if self._quantises else encoded.latent_dist.mean
        latent_BLYX: Tensor = (mean_BLYX - self._shift_L11) * self._scale_L11
        return latent_BLYX

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """Scaled and shifted back, quantised if the autoencoder does, and decoded."""
        z_BLYX = latent_BLYX / self._scale_L11 + self._shift_L11
        image_BCHW: Tensor = self._autoencoder.decode(z_BLYX).sample
        return image_BCHW
