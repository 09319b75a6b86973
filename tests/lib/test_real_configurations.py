"""The published configurations themselves: opened from their files, and, with random weights at
full size, split and stepped once.

`pytest -m slow` runs the second part: two minutes and 5 GB.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import save_file

from lib.models.autoencoder import PIXELS, ImageSpace, LatentSpace
from lib.models.checkpoint import Checkpoint, open_checkpoint
from lib.models.model_parts import Part
from lib.models.unet_denoiser import UNetDenoiser
from lib.sampling.ddim import transfer
from lib.sampling.grid import make_grid, training_alphas

NAME = "diffusion_pytorch_model.safetensors"
Files = dict[str, dict[str, Any]]
DDPM_CELEBAHQ: Files = {
    "config.json": {
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
        "attention_head_dim": None, "block_out_channels": [128, 128, 256, 256, 512, 512],
        "center_input_sample": False,
        "down_block_types": [*["DownBlock2D"] * 4, "AttnDownBlock2D", "DownBlock2D"],
        "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1, "in_channels": 3,
        "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06,
        "norm_num_groups": 32, "out_channels": 3, "sample_size": 256,
        "time_embedding_type": "positional",
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", *["UpBlock2D"] * 4],
    },
    "scheduler_config.json": {
        "_class_name": "DDPMScheduler", "beta_end": 0.02, "beta_schedule": "linear",
        "beta_start": 0.0001, "clip_sample": True, "num_train_timesteps": 1000,
        "trained_betas": None, "variance_type": "fixed_small",
    },
}  # fmt: skip
LDM_CELEBAHQ: Files = {
    "unet/config.json": {
        "_class_name": "UNet2DModel", "_diffusers_version": "0.0.4", "act_fn": "silu",
        "attention_head_dim": 32, "block_out_channels": [224, 448, 672, 896],
        "center_input_sample": False, "down_block_types": ["DownBlock2D", *["AttnDownBlock2D"] * 3],
        "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 3,
        "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
        "norm_num_groups": 32, "out_channels": 3, "sample_size": 64,
        "time_embedding_type": "positional",
        "up_block_types": [*["AttnUpBlock2D"] * 3, "UpBlock2D"],
    },
    "vqvae/config.json": {
        "_class_name": "VQModel", "_diffusers_version": "0.1.2", "act_fn": "silu",
        "block_out_channels": [128, 256, 512], "down_block_types": ["DownEncoderBlock2D"] * 3,
        "in_channels": 3, "latent_channels": 3, "layers_per_block": 2, "num_vq_embeddings": 8192,
        "out_channels": 3, "sample_size": 256, "up_block_types": ["UpDecoderBlock2D"] * 3,
    },
    "scheduler/scheduler_config.json": {
        "_class_name": "DDIMScheduler", "beta_end": 0.0195, "beta_schedule": "scaled_linear",
        "beta_start": 0.0015, "clip_sample": False, "num_train_timesteps": 1000,
        "timestep_values": None, "trained_betas": None,
    },
}  # fmt: skip
STABLE_DIFFUSION: Files = {
    "model_index.json": {
        "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
    },
    "unet/config.json": {
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
        "center_input_sample": False, "cross_attention_dim": 768,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "downsample_padding": 1, "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4,
        "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05,
        "norm_num_groups": 32, "out_channels": 4, "sample_size": 64,
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL", "_diffusers_version": "0.6.0", "act_fn": "silu",
        "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "in_channels": 3, "latent_channels": 4,
        "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 512,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
    },
    "text_encoder/config.json": {
        "_name_or_path": "openai/clip-vit-large-patch14", "architectures": ["CLIPTextModel"],
        "hidden_act": "quick_gelu", "hidden_size": 768, "intermediate_size": 3072,
        "max_position_embeddings": 77, "model_type": "clip_text_model", "num_attention_heads": 12,
        "num_hidden_layers": 12, "torch_dtype": "float32", "vocab_size": 49408,
    },
    "tokenizer/vocab.json": {"<|startoftext|>": 0, "<|endoftext|>": 1},
    "scheduler/scheduler_config.json": {
        "_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "num_train_timesteps": 1000, "set_alpha_to_one": False,
        "skip_prk_steps": True, "steps_offset": 1, "trained_betas": None, "clip_sample": False,
    },
}  # fmt: skip
EXPECTED: dict[str, tuple[Files, str, int, tuple[int, int, int], tuple[int, int, int]]] = {
    "google/ddpm-celebahq-256": (DDPM_CELEBAHQ, "pixel", 256, (3, 256, 256), (512, 8, 8)),
    "CompVis/ldm-celebahq-256": (LDM_CELEBAHQ, "latent", 256, (3, 64, 64), (896, 8, 8)),
    "stable-diffusion-v1-5": (STABLE_DIFFUSION, "text", 512, (4, 64, 64), (1280, 8, 8)),
}


def opened(folder: Path, files: Files) -> Checkpoint:
    """The configurations with safetensors files that hold nothing."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
        if path.name == "config.json":
            text = path.parent.name == "text_encoder"
            save_file({}, path.parent / ("model.safetensors" if text else NAME))
    return open_checkpoint(str(folder))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_published_configuration_is_what_it_is_known_to_be(name: str, tmp_path: Path) -> None:
    files, kind, size, latent, _ = EXPECTED[name]
    found = opened(tmp_path, files)
    assert (found.kind, found.image_size, found.latent_shape) == (kind, size, latent)


def of_random_weights(part: Part) -> Any:
    """The network at full size; weights small enough that a forward stays finite."""
    with torch.device("meta"):
        network = getattr(diffusers, part.class_name).from_config(dict(part.config))
    network = network.to_empty(device="cpu").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
@torch.no_grad()
def test_a_published_configuration_is_built_split_and_stepped(name: str, tmp_path: Path) -> None:
    files, _, _, latent, h_shape = EXPECTED[name]
    found = opened(tmp_path, files)
    space: ImageSpace = PIXELS
    generator = torch.Generator().manual_seed(1)
    if found.autoencoder is not None:
        space = LatentSpace(of_random_weights(found.autoencoder), found.autoencoder.config)
        side = 8 * space.factor  # convolutions: a corner of the image does
        image_BCHW = torch.rand(1, 3, side, side, generator=generator) * 2 - 1
        latent_BLYX = space.latent(image_BCHW)
        assert latent_BLYX.shape == (1, latent[0], 8, 8)
        assert space.image(latent_BLYX).shape == image_BCHW.shape
    alphas_T = [float(a) for a in training_alphas(found.scheduler_config)]
    prompt_1ME = None
    if found.text is not None:
        prompt_1ME = torch.randn(1, 77, 768, generator=generator)
    unet = of_random_weights(found.unet)
    denoiser = UNetDenoiser(unet, alphas_T, "epsilon", "after", space=space, prompt_1ME=prompt_1ME)
    assert denoiser.image_size == found.image_size
    assert denoiser.h_shape == h_shape
    grid = make_grid(found.scheduler_config, 50, "linspace")
    node = 25
    x_BLYX = torch.randn(1, *latent, generator=generator)
    point = denoiser.encode(x_BLYX, grid.timestep(node))
    assert torch.equal(denoiser.decode(point, point.h_BCYX), point.eps_BLYX)
    shifted = denoiser.decode(point, point.h_BCYX * 1.1)
    assert (shifted - point.eps_BLYX).abs().max() > 0
    down_BLYX = transfer(x_BLYX, point.eps_BLYX, grid.alphas[node], grid.alphas[node - 1])
    assert down_BLYX.shape == (1, *latent)
    assert bool(torch.isfinite(down_BLYX).all())
