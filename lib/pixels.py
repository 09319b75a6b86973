"""Images in [-1, 1] and as bytes, and how far two of them are apart.

Shape suffixes: B images, C, H, W of the image; the rest as in `denoiser`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lib.denoiser import Denoiser


def change(a_BCHW: Tensor, b_BCHW: Tensor, mask_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean |a - b| inside and outside the mask, (B,) each, weighted by coverage, averaged over
    channels; 0 where a mask leaves no inside or no outside.
    """
    difference_BHW = (a_BCHW - b_BCHW).abs().mean(1)

    def mean(weight_HW: Tensor) -> Tensor:
        return (difference_BHW * weight_HW).sum((1, 2)) / weight_HW.sum().clamp_min(1e-6)

    return mean(mask_HW), mean(1 - mask_HW)


def quantised(image_BCHW: Tensor) -> Tensor:
    """[-1, 1] to uint8, rounded to nearest, clamped."""
    return ((image_BCHW + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def as_floats(image_BCHW: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return image_BCHW.float() / 127.5 - 1


@torch.no_grad()
def decoded_images(denoiser: Denoiser, x_BLYX: Tensor, batch_size: int) -> Tensor:
    """Clean latents as images (B, C, H, W), uint8 on the CPU; so many go through an autoencoder at
    once.
    """
    parts = x_BLYX.split(batch_size)
    return torch.cat([quantised(denoiser.image(part)).cpu() for part in parts])


def psnr(a_CHW: Tensor, b_CHW: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for images in [-1, 1] (peak to peak 2)."""
    mse = torch.mean((a_CHW - b_CHW) ** 2).clamp_min(1e-12)
    return float(10 * torch.log10(4 / mse))
