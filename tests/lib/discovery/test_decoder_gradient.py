from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.discovery.decoder_gradient import brightening, through_decoder
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.regions import box_mask, make_region

CPU = torch.device("cpu")


@pytest.fixture(params=["VQModel", "AutoencoderKL"])
def latent_model(
    request: pytest.FixtureRequest, backbones: ModuleType, tmp_path: Path
) -> tuple[Denoiser, Any]:
    """The denoiser, and its autoencoder as the library loads it, in float64."""
    import diffusers

    folder = backbones.save_latent(tmp_path, request.param)
    own = getattr(diffusers, request.param).from_pretrained(folder / "vqvae").double()
    return load_denoiser(open_checkpoint(str(folder)), CPU, "after"), own


def decoded(own: Any, z_BLYX: Tensor) -> Tensor:
    """Without quantisation."""
    options = {"force_not_quantize": True} if type(own).__name__ == "VQModel" else {}
    image_BCHW: Tensor = own.decode(z_BLYX, **options).sample
    return image_BCHW


@torch.no_grad()
def test_a_change_of_the_image_is_pulled_back_through_the_decoder(
    latent_model: tuple[Denoiser, Any],
) -> None:
    """<J^T d, u> = <d, J u>, J u by central differences in float64."""
    denoiser, own = latent_model
    generator = torch.Generator().manual_seed(0)
    latent_BLYX = 0.1 * torch.randn(1, *denoiser.latent_shape, generator=generator)
    scale = own.config.scaling_factor
    z_BLYX = latent_BLYX.double() / scale
    if type(own).__name__ == "VQModel":
        z_BLYX = own.quantize(z_BLYX)[0]  # the straight-through derivative is taken there
    u_BLYX = torch.randn(1, *denoiser.latent_shape, generator=generator).double()
    step = 1e-5 / scale
    change = decoded(own, z_BLYX + step * u_BLYX) - decoded(own, z_BLYX - step * u_BLYX)
    d_RCHW = torch.randn(3, 3, 16, 16, generator=generator)
    expected_R = (d_RCHW.double() * change).flatten(1).sum(1) / 2e-5
    pulled_RN = through_decoder(denoiser, latent_BLYX)(d_RCHW)
    found_R = pulled_RN.double() @ u_BLYX.flatten()
    torch.testing.assert_close(found_R, expected_R, rtol=1e-3, atol=1e-3)

    region = make_region("left", box_mask((0, 0, 0.5, 1), 16))
    brighter = brightening(denoiser, region.mask_HW[None], through_decoder(denoiser, latent_BLYX))
    gain = float((region.mask_HW * change).sum())
    assert brighter(0, u_BLYX.flatten().float()) * gain > 0
    assert brighter(0, -u_BLYX.flatten().float()) * gain < 0


def test_of_pixels_a_change_is_itself(backbone: Callable[[str], Path]) -> None:
    denoiser = load_denoiser(open_checkpoint(str(backbone("pixel"))), CPU, "after")
    d_RCHW = torch.randn(2, 3, 16, 16)
    to_latent = through_decoder(denoiser, torch.zeros(1, 3, 16, 16))
    assert torch.equal(to_latent(d_RCHW), d_RCHW.flatten(1))
