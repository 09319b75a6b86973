"""Shared by all tests: one compute thread, and small real checkpoints saved in the real formats."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)

MERGES = [("f", "a"), ("fa", "c"), ("fac", "e</w>"), ("s", "m"), ("sm", "i"), ("smi", "l")]
MERGES += [("smil", "e</w>")]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained 16x16 UNet2DModel with attention in the middle, saved by diffusers itself."""
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    DDPMPipeline(unet, DDPMScheduler(clip_sample=False)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def shards() -> ModuleType:
    """The module `shards` beside this file: pictures, shards, configs and runs."""
    path = Path(__file__).with_name("shards.py")
    spec = importlib.util.spec_from_file_location("shards", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shards"] = module
    spec.loader.exec_module(module)
    return module


def vocabulary() -> dict[str, int]:
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(letter + "</w>" for letter in letters)]
    words += ["".join(pair) for pair in MERGES]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return {word: number for number, word in enumerate(words)}


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained CLIP of a few words that reads 24x24 images, saved by transformers itself."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip") / "clip"
    torch.manual_seed(0)
    words = vocabulary()
    layers = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ends = {
        "bos_token_id": words["<|startoftext|>"],
        "eos_token_id": words["<|endoftext|>"],
        "pad_token_id": words["<|endoftext|>"],
    }
    config = CLIPConfig(
        text_config=layers | ends | {"vocab_size": len(words), "max_position_embeddings": 12},
        vision_config=layers | {"image_size": 24, "patch_size": 8},
        projection_dim=8,
    )
    model = CLIPModel(config)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    CLIPTokenizer(words, MERGES).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    ).save_pretrained(folder)
    return folder
