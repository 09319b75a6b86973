"""One decoding step with a shifted h, and how strong the shift is.

Shape suffixes: B edits, L latent channels, Y, X height and width; h has its own (channel, y, x).
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor

from lib.ddim import predicted_x0, transfer
from lib.denoiser import Denoiser, Point
from lib.grid import Grid

REFERENCE_STEPS = 20
"""Asymmetric strengths are those of a grid of so many steps."""


def step_weight(injection: str, num_steps: int) -> float:
    """Factor on the shift of one step that makes the total independent of the number of steps.

    Asymmetric injection moves the predicted x_0 by the same amount at every step, however short,
    so the sum over the window grows with their number; the shift is scaled as Asyrp does (sum of
    shifts kept). In symmetric injection both terms of the step nearly cancel and what is left is
    proportional to its length.
    """
    return REFERENCE_STEPS / num_steps if injection == "asymmetric" else 1.0


def asymmetric_step(
    denoiser: Denoiser, grid: Grid, node: int, point: Point, shift_BCYX: Tensor
) -> Tensor:
    """x_{t-1} = sqrt(a') P_t(eps(x_t | h + shift)) + sqrt(1 - a') eps(x_t) (Asyrp, eq. 5 with eta
    = 0).

    `point` is the network at x_t; a batch of one serves all edits. The encoder is not run again.
    """
    alpha, alpha_to = grid.alphas[node], grid.alphas[node - 1]
    edited_BLYX = denoiser.decode(point, point.h_BCYX + shift_BCYX)
    x0_BLYX = predicted_x0(point.x_BLYX, edited_BLYX, alpha)
    return sqrt(alpha_to) * x0_BLYX + sqrt(1 - alpha_to) * point.eps_BLYX


def symmetric_step(
    denoiser: Denoiser, grid: Grid, node: int, x_BLYX: Tensor, shift_BCYX: Tensor
) -> Tensor:
    """Both terms of the step from eps(x_t | h + shift) (Haas et al. 2024), one evaluation."""
    eps_BLYX = denoiser.predict_shifted(x_BLYX, grid.timestep(node), shift_BCYX)
    return transfer(x_BLYX, eps_BLYX, grid.alphas[node], grid.alphas[node - 1])


def change(a_BCHW: Tensor, b_BCHW: Tensor, mask_HW: Tensor) -> tuple[Tensor, Tensor]:
    """Mean |a - b| inside and outside the mask, (B,) each, weighted by coverage, averaged over
    channels; 0 where a mask leaves no inside or no outside.
    """
    difference_BHW = (a_BCHW - b_BCHW).abs().mean(1)

    def mean(weight_HW: Tensor) -> Tensor:
        return (difference_BHW * weight_HW).sum((1, 2)) / weight_HW.sum().clamp_min(1e-6)

    return mean(mask_HW), mean(1 - mask_HW)


def psnr(a_CHW: Tensor, b_CHW: Tensor) -> float:
    """Peak signal-to-noise ratio in dB for images in [-1, 1] (peak to peak 2)."""
    mse = torch.mean((a_CHW - b_CHW) ** 2).clamp_min(1e-12)
    return float(10 * torch.log10(4 / mse))
