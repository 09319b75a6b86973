"""Which U-Nets and schedulers can be split at h and inverted; every other one is refused by its
config alone, with the reason.

Diffusers' class defaults stand for what a config.json leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.models.model_parts import Part
from lib.problems import ModelProblem

_MID_BLOCKS = ("UNetMidBlock2D", "UNetMidBlock2DCrossAttn")
_PREDICTIONS = ("epsilon", "v_prediction", "sample")
_SCHEDULES_OF_THEIR_OWN = (
    "ScoreSde", "KarrasVe", "FlowMatch", "EDM", "CMStochastic", "VQDiffusion", "RePaint", "Amused",
    "CogVideo",
)  # fmt: skip
"""Beginnings of the names of schedulers whose noise levels are no cumulative product of betas."""
_EXTRA_CHANNELS = {
    9: "an inpainting model, which also takes a mask and a masked image",
    5: "a depth model, which also takes a depth map",
    7: "an upscaling model, which also takes a small image",
    8: "a model of instructions (InstructPix2Pix), which also takes the original image",
}


def check_unet(unet: Part, latent_channels: int, scheduler: Mapping[str, Any]) -> None:
    """Refuse what cannot be run on latents of `latent_channels` (3 for pixels).

    Raises:
        ModelProblem: square images, one bottleneck, no conditioning but text, the channels of the
            latents, and a schedule of the scheduler's length are what is expected.
    """
    config, where = unet.config, unet.folder / "config.json"
    if unet.number("sample_size", 0) < 1:
        raise ModelProblem(f"{where}: expected a positive sample_size")
    blocks = [*config.get("down_block_types", ()), *config.get("up_block_types", ())]
    if any("Skip" in str(name) for name in blocks):
        raise ModelProblem(
            f"{where}: score-SDE `Skip` blocks carry a second image stream past h,"
            " so the network has no single bottleneck to shift"
        )
    if config.get("mid_block_type", _MID_BLOCKS[0]) not in _MID_BLOCKS:
        raise ModelProblem(
            f"{where}: expected a mid block ({' or '.join(_MID_BLOCKS)}), whose output is h, got"
            f" {config['mid_block_type']!r}"
        )
    _refuse_conditioning(config, where)
    _check_channels(unet, latent_channels, where)
    kind = config.get("time_embedding_type", "positional")
    if kind == "fourier":
        raise ModelProblem(
            f"{where}: a Fourier time embedding is of continuous noise levels; expected one of the"
            " timesteps of a schedule"
        )
    steps = int(scheduler.get("num_train_timesteps", 1000))
    if config.get("num_train_timesteps") not in (None, steps):
        raise ModelProblem(
            f"{where}: num_train_timesteps is {config['num_train_timesteps']}, but the scheduler's"
            f" is {steps}; expected the same"
        )


def check_scheduler(config: Mapping[str, Any], where: Path) -> None:
    """Raises ModelProblem for a schedule that is not that of a discrete diffusion of betas."""
    name = config.get("_class_name")
    if name is not None and str(name).startswith(_SCHEDULES_OF_THEIR_OWN):
        raise ModelProblem(
            f"{where}: {name} has no schedule of betas in which DDIM could be inverted; expected"
            " the scheduler of a DDPM, such as DDPMScheduler, DDIMScheduler or PNDMScheduler"
        )
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ModelProblem(
            f"{where}: expected prediction_type {', '.join(_PREDICTIONS)}, got {prediction!r}"
        )
    if config.get("rescale_betas_zero_snr"):
        raise ModelProblem(
            f"{where}: rescale_betas_zero_snr makes the last timestep pure noise, from which no"
            " image can be predicted; expected a schedule without it"
        )


def _refuse_conditioning(config: Mapping[str, Any], where: Path) -> None:
    if config.get("addition_embed_type") is not None:
        raise ModelProblem(
            f"{where}: addition_embed_type {config['addition_embed_type']!r}: Stable Diffusion XL"
            " and its like take size and second text embeddings; expected Stable Diffusion 1 or 2"
        )
    if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
        raise ModelProblem(
            f"{where}: the network is class-conditional (num_class_embeds, class_embed_type);"
            " expected an unconditional network or Stable Diffusion 1 or 2"
        )
    for key in ("encoder_hid_dim", "encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise ModelProblem(
                f"{where}: {key} is set: the network takes an input that no prompt gives; expected"
                " Stable Diffusion 1 or 2"
            )


def _check_channels(unet: Part, latent_channels: int, where: Path) -> None:
    latent = unet.class_name == "UNet2DConditionModel"
    default = 4 if latent else 3
    taken, given = unet.number("in_channels", default), unet.number("out_channels", default)
    of = "the autoencoder's latents" if latent or latent_channels != 3 else "RGB"
    if taken != latent_channels:
        known = _EXTRA_CHANNELS.get(taken) if latent_channels == 4 else None
        reason = f": it is {known}" if known else ""
        if taken in (3, 4) and latent_channels == 3 and not latent:
            reason = "; a latent model needs its vqvae/ or vae/ beside the U-Net"
        raise ModelProblem(
            f"{where}: expected {latent_channels} input channels ({of}), got {taken}{reason}"
        )
    if given not in (taken, 2 * taken):
        raise ModelProblem(
            f"{where}: expected {taken} output channels, or {2 * taken} with a learned variance,"
            f" got {given}"
        )
