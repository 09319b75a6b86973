"""Changes of the image as changes of the latent: what asks for something in pixels (a text, a sign
rule) meets directions that are found in the latent.

Shape suffixes: R changes, N = L Y X entries of a latent; the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.discovery.signs import brightness, correlation

ToLatent = Callable[[Tensor], Tensor]
"""Cotangents of the image (R, C, H, W) to those of the latent (R, N)."""


def as_pixels(d_RCHW: Tensor) -> Tensor:
    """Where the latents are the pixels."""
    return d_RCHW.flatten(1)


def through_decoder(denoiser: Denoiser, latent_1LYX: Tensor) -> ToLatent:
    """d -> J^T d, J the derivative of the decoder at the latent, by reverse mode; a vector
    quantisation counts as the identity (van den Oord et al. 2017, straight-through).
    """
    if works_on_pixels(denoiser):
        return as_pixels

    def pulled(d_RCHW: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf_1LYX = latent_1LYX.detach().clone().requires_grad_()
            image_1CHW = denoiser.image(leaf_1LYX)
        rows = [
            torch.autograd.grad(image_1CHW, leaf_1LYX, d[None], retain_graph=True)[0].flatten()
            for d in d_RCHW.to(image_1CHW)
        ]
        return torch.stack(rows)

    return pulled


def brightening(
    denoiser: Denoiser, cover_RHW: Tensor, to_latent: ToLatent
) -> Callable[[int, Tensor], float]:
    """(number of the region, change of the latent N) -> the reference of `signs.SIGN_RULE`:
    positive where the change brightens the region of the image that `cover` says.

    Of a latent model it is the correlation with what brightens the decoded region, found when it
    is first asked for.
    """
    if works_on_pixels(denoiser):
        return lambda _region, u_N: brightness(u_N.cpu())
    brighter = cache(lambda: to_latent(cover_RHW[:, None].expand(-1, 3, -1, -1)))
    return lambda region, u_N: correlation(u_N, brighter()[region])


def works_on_pixels(denoiser: Denoiser) -> bool:
    """Whether images and latents are the same."""
    return denoiser.latent_shape == (3, denoiser.image_size, denoiser.image_size)
