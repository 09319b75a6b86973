"""Shared by all tests: one compute thread, and small real checkpoints saved in the real formats."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

torch.set_num_threads(1)


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
