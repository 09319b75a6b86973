"""DDIM there and back as published systems do it, timestep by timestep: the baselines of
`benchmarks.inversion`.

Every function takes the network, alpha_bar of the training timesteps, N, and clean images; it gives
x at the top and the images that come back. Shape suffixes: as in `lib.sampling.ddim`; T timesteps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from torch import Tensor

from lib.sampling.ddim import transfer

Network = Callable[[Tensor, float], Tensor]
"""eps(x_BLYX, t); t may lie between timesteps."""

_CLEAN = 1.0


def asyrp(
    network: Network, alphas_T: Sequence[float], num_steps: int, x0_BLYX: Tensor
) -> tuple[Tensor, Tensor]:
    """Asyrp and DiffusionCLIP: whole timesteps 0..999, the image taken for x at t = 0, and one
    decoding step more, from there to the clean image.
    """
    steps = np.linspace(0, len(alphas_T) - 1, num_steps).astype(int).tolist()
    x_BLYX = x0_BLYX
    for t, up in pairwise(steps):
        x_BLYX = transfer(x_BLYX, network(x_BLYX, t), alphas_T[t], alphas_T[up])
    top_BLYX = x_BLYX
    for t, down in pairwise(reversed(steps)):
        x_BLYX = transfer(x_BLYX, network(x_BLYX, t), alphas_T[t], alphas_T[down])
    return top_BLYX, transfer(x_BLYX, network(x_BLYX, 0), alphas_T[0], _CLEAN)


def park_loco(
    network: Network, alphas_T: Sequence[float], num_steps: int, x0_BLYX: Tensor
) -> tuple[Tensor, Tensor]:
    """Diffusion Pullback and LOCO Edit: fractional timesteps for the network, their whole part for
    alpha_bar; inversion stops one node below the top, where decoding begins.
    """
    steps = np.linspace(0, len(alphas_T) - 1, num_steps).tolist()
    alphas = [alphas_T[int(t)] for t in steps]
    x_BLYX = x0_BLYX
    for i in range(num_steps - 2):
        x_BLYX = transfer(x_BLYX, network(x_BLYX, steps[i]), alphas[i], alphas[i + 1])
    top_BLYX = x_BLYX
    for i in range(num_steps - 1, 0, -1):
        x_BLYX = transfer(x_BLYX, network(x_BLYX, steps[i]), alphas[i], alphas[i - 1])
    return top_BLYX, x_BLYX


def haas(
    network: Network, alphas_T: Sequence[float], num_steps: int, x0_BLYX: Tensor
) -> tuple[Tensor, Tensor]:
    """semantic-diffusion: the leading timesteps, from each of which inversion goes a whole step up,
    to 998 at most; decoding begins at the last of them, a step lower.
    """
    stride = len(alphas_T) // num_steps
    steps = [i * stride for i in range(num_steps)]
    x_BLYX = x0_BLYX
    for t in steps:
        up = min(len(alphas_T) - 2, t + stride)
        x_BLYX = transfer(x_BLYX, network(x_BLYX, t), alphas_T[t], alphas_T[up])
    top_BLYX = x_BLYX
    for t in reversed(steps):
        below = alphas_T[t - stride] if t else _CLEAN
        x_BLYX = transfer(x_BLYX, network(x_BLYX, t), alphas_T[t], below)
    return top_BLYX, x_BLYX


def diffusers_pair(
    network: Network, alphas_T: Sequence[float], num_steps: int, x0_BLYX: Tensor
) -> tuple[Tensor, Tensor]:
    """diffusers' own DDIMInverseScheduler and DDIMScheduler, with `clip_sample` off."""
    alphas = np.asarray(alphas_T)
    betas = 1 - alphas / np.concatenate([[1.0], alphas[:-1]])
    up = DDIMInverseScheduler(trained_betas=betas, clip_sample=False)
    down = DDIMScheduler(trained_betas=betas, clip_sample=False)
    up.set_timesteps(num_steps)
    down.set_timesteps(num_steps)
    x_BLYX = x0_BLYX
    for t in up.timesteps:
        x_BLYX = up.step(network(x_BLYX, int(t)), t, x_BLYX).prev_sample
    top_BLYX = x_BLYX
    for t in down.timesteps:
        x_BLYX = down.step(network(x_BLYX, int(t)), t, x_BLYX).prev_sample
    return top_BLYX, x_BLYX


def rmse_of_constant_noise(
    method: Callable[..., tuple[Tensor, Tensor]], alphas_T: Sequence[float], num_steps: int
) -> float:
    """Of the images that come back when the network's noise is the same everywhere, in float64: 0
    on a grid that is the same both ways.
    """
    generator = torch.Generator().manual_seed(0)
    x0_BLYX = torch.rand(4, 3, 64, 64, generator=generator, dtype=torch.float64) * 2 - 1
    eps_BLYX = torch.randn(4, 3, 64, 64, generator=generator, dtype=torch.float64)
    _, back_BLYX = method(lambda x, t: eps_BLYX, alphas_T, num_steps, x0_BLYX)
    return float((back_BLYX - x0_BLYX).square().mean().sqrt())
