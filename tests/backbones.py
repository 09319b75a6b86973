"""Small untrained models of every kind, in the real architectures, saved by diffusers' own
`save_pretrained`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

MERGES = [("f", "a"), ("fa", "c"), ("fac", "e</w>"), ("s", "m"), ("sm", "i"), ("smi", "l")]
MERGES += [("smil", "e</w>")]
PROMPT_TOKENS = 12
PROMPT = {"prompt": "a smile face"}
OPTIONS: dict[str, dict[str, Any]] = {
    "stable-diffusion": PROMPT,
    "stable-diffusion-2": PROMPT,
    "guided": PROMPT | {"negative_prompt": "a face", "guidance_scale": 3.0},
}
"""Of the config's section `model`, beside the checkpoint."""


def vocabulary() -> dict[str, int]:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["".join(pair) for pair in MERGES]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


def text_config() -> dict[str, Any]:
    words = vocabulary()
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": words["<|startoftext|>"],
        "eos_token_id": words["<|endoftext|>"],
        "pad_token_id": words["<|endoftext|>"],
        "vocab_size": len(words),
        "max_position_embeddings": PROMPT_TOKENS,
    }


def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocabulary(), MERGES, model_max_length=PROMPT_TOKENS)


def unet(**changes: Any) -> Any:
    """A UNet2DModel of two levels with attention in the middle."""
    from diffusers import UNet2DModel

    options: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
        "attention_head_dim": 16,
    }
    torch.manual_seed(0)
    return lively(UNet2DModel(**options | changes))


def conditional_unet(**changes: Any) -> Any:
    """A UNet2DConditionModel as in Stable Diffusion: cross-attention outside the last level."""
    from diffusers import UNet2DConditionModel

    options: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "norm_num_groups": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 16,
    }
    torch.manual_seed(0)
    return lively(UNet2DConditionModel(**options | changes))


def autoencoder(kind: str, **changes: Any) -> Any:
    """`VQModel` or `AutoencoderKL` that halves the sides."""
    import diffusers

    options: dict[str, Any] = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "norm_num_groups": 4,
        "sample_size": 16,
    }
    torch.manual_seed(0)
    return getattr(diffusers, kind)(**options | changes)


def lively(network: Any) -> Any:
    """Biases and norms of a fresh network are zeros and ones, behind which mistakes can hide."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network


def scheduler(**changes: Any) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(**{"clip_sample": False} | changes)


def save_pixel(folder: Path, scheduler_changes: dict[str, Any], **changes: Any) -> Path:
    from diffusers import DDPMPipeline

    DDPMPipeline(unet(**changes), scheduler(**scheduler_changes)).save_pretrained(folder)
    return folder


def save_latent(folder: Path, kind: str = "VQModel", **changes: Any) -> Path:
    from diffusers import LDMPipeline

    options = {"num_vq_embeddings": 32} if kind == "VQModel" else {"latent_channels": 3}
    LDMPipeline(
        autoencoder(kind, **options | changes), unet(sample_size=8), scheduler()
    ).save_pretrained(folder)
    return folder


def save_stable_diffusion(folder: Path, prediction: str = "epsilon", **changes: Any) -> Path:
    from diffusers import PNDMScheduler, StableDiffusionPipeline
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    encoder = CLIPTextModel(CLIPTextConfig(**text_config()))
    for value in encoder.parameters():
        torch.nn.init.normal_(value, std=0.3)
    StableDiffusionPipeline(
        vae=autoencoder("AutoencoderKL"),
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=conditional_unet(**changes),
        scheduler=PNDMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1,
            skip_prk_steps=True, prediction_type=prediction,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def save(kind: str, folder: Path) -> Path:
    """A checkpoint of a kind; the guided one is Stable Diffusion that is asked for guidance."""
    match kind:
        case "pixel":
            return save_pixel(folder, {})
        case "learned-variance":  # as the networks of improved and of guided diffusion
            return save_pixel(
                folder,
                {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range"},
                out_channels=6,
                resnet_time_scale_shift="scale_shift",
                downsample_type="resnet",
                upsample_type="resnet",
            )
        case "v-prediction":
            return save_pixel(folder, {"prediction_type": "v_prediction"})
        case "vq":
            return save_latent(folder)
        case "stable-diffusion-2":
            return save_stable_diffusion(
                folder,
                prediction="v_prediction",
                attention_head_dim=[2, 4],
                use_linear_projection=True,
                upcast_attention=True,
            )
        case _:
            return save_stable_diffusion(folder)
