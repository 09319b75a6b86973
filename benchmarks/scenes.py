"""The networks and points at which Jacobians are measured: one face, one timestep, six disjoint
regions.

Shape suffixes: B batch, L colours, Y, X height and width, H, W the same of a mask, R regions, N
entries of the image.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.embedded import HELD_OUT_SEED
from benchmarks.toy import toy_checkpoint
from lib.demo.faces import CLASSES, masks, render, sample_factors
from lib.demo.training import build_scheduler
from lib.models.checkpoint import EMBEDDED, Checkpoint, open_checkpoint, weights_sha256
from lib.models.unet_denoiser import UNetDenoiser
from lib.sampling.ddim import inversion
from lib.sampling.grid import make_grid, training_alphas

REGIONS = ("eyes", "brows", "mouth", "nose", "hair", "background-left")
MODELS = ("embedded", "toy", "celebahq")
NUM_STEPS = 50
_TIMESTEPS = {"embedded": 368, "toy": 500, "celebahq": 368}


@dataclass(frozen=True, slots=True)
class Scene:
    """A network at one (x_t, t), float32."""

    name: str
    unet: Any
    denoiser: UNetDenoiser
    x_BLYX: Tensor
    t: int
    alpha: float
    """alpha_bar(t)."""
    masks_RN: Tensor
    """0 or 1, in the order of `REGIONS`."""
    key: str
    """Sixteen hex digits of weights, x_t, t and masks."""

    @property
    def scale(self) -> float:
        """d P_t / d eps (Haas et al. 2024, eq. 16)."""
        return -sqrt((1 - self.alpha) / self.alpha)


def load_scene(name: str, cache: Path) -> Scene:
    """One of MODELS at its timestep; trains the toy where `cache` does not hold it."""
    if name == "celebahq":
        return _random_celebahq()
    checkpoint = open_checkpoint(EMBEDDED) if name == "embedded" else toy_checkpoint(cache)
    unet = _trained(checkpoint)
    grid = make_grid(checkpoint.scheduler_config, NUM_STEPS, "linspace")
    alphas_T = [float(a) for a in training_alphas(checkpoint.scheduler_config)]
    denoiser = UNetDenoiser(unet, alphas_T, "epsilon", "after")
    x0_BLYX, masks_RN = face(denoiser.image_size)
    node = grid.nearest_node(_TIMESTEPS[name])
    with torch.no_grad():
        *_, (_, x_BLYX) = inversion(denoiser.predict, grid, x0_BLYX, last=node, refinements=0)
    t = grid.timestep(node)
    key = _key(weights_sha256(checkpoint), x_BLYX, t, masks_RN)
    return Scene(name, unet, denoiser, x_BLYX, t, grid.alphas[node], masks_RN, key)


def face(size: int) -> tuple[Tensor, Tensor]:
    """One held-out face (1, 3, size, size) and its six masks (R, N), thresholded and disjoint."""
    factors_BF = sample_factors(1, HELD_OUT_SEED)
    areas = masks(factors_BF, size)
    seen = dict(zip(CLASSES, areas.segmentation_BKHW[0], strict=True))
    left_HW = torch.zeros(size, size)
    left_HW[:, : size // 4] = 1
    # The nose is two pixels high at 32 px: a margin of a pixel gives it rank enough for ten.
    nose_HW = torch.nn.functional.max_pool2d(seen["nose"][None, None], 3, 1, 1)[0, 0]
    cover_RHW = [
        *(areas.zones[name][0] for name in ("eyes", "brows", "mouth")),
        nose_HW, seen["hair"], seen["background"] * left_HW,
    ]  # fmt: skip
    taken_HW = torch.zeros(size, size, dtype=torch.bool)
    rows = []
    for cover_HW in cover_RHW:
        mask_HW = (cover_HW > 0.5) & ~taken_HW
        taken_HW |= mask_HW
        rows.append(mask_HW.expand(3, -1, -1).flatten())
    return render(factors_BF, size).image_BCHW, torch.stack(rows).float()


def _trained(checkpoint: Checkpoint) -> Any:
    unet: Any = UNet2DModel.from_config(dict(checkpoint.unet.config))
    unet.load_state_dict({k: v.float() for k, v in load_file(checkpoint.unet.weights[0]).items()})
    return unet.eval().requires_grad_(False)


def _random_celebahq() -> Scene:
    """The architecture of google/ddpm-celebahq-256 with seeded random weights; x_t is a noised
    face, since inverting with a random network means nothing.
    """
    torch.manual_seed(0)
    unet: Any = UNet2DModel(
        sample_size=256,
        in_channels=3,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=(128, 128, 256, 256, 512, 512),
        down_block_types=(*("DownBlock2D",) * 4, "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", *("UpBlock2D",) * 4),
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    alphas_T = [float(a) for a in training_alphas(dict(build_scheduler().config))]
    denoiser = UNetDenoiser(unet, alphas_T, "epsilon", "after")
    t = _TIMESTEPS["celebahq"]
    x0_BLYX, masks_RN = face(256)
    noise_BLYX = torch.randn(x0_BLYX.shape, generator=torch.Generator().manual_seed(0))
    x_BLYX = sqrt(alphas_T[t]) * x0_BLYX + sqrt(1 - alphas_T[t]) * noise_BLYX
    key = _key("random-0", x_BLYX, t, masks_RN)
    return Scene("celebahq", unet, denoiser, x_BLYX, t, alphas_T[t], masks_RN, key)


def _key(weights: str, x_BLYX: Tensor, t: int, masks_RN: Tensor) -> str:
    digest = hashlib.sha256(f"{weights} {t}".encode())
    for part in (x_BLYX, masks_RN):
        digest.update(part.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
