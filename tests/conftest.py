"""Shared by all tests: one compute thread, and small real checkpoints saved in the real formats."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from benchmarks.faulty_s3 import FaultyS3

torch.set_num_threads(1)
BUCKET = "s3://deltah-test"


def _module(name: str) -> ModuleType:
    """The module beside this file, under its own name: tests are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


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
    return _module("shards")


@pytest.fixture(scope="session")
def backbones() -> ModuleType:
    """The module `backbones` beside this file: small models of every kind."""
    return _module("backbones")


@pytest.fixture(scope="session")
def mask_networks() -> ModuleType:
    """The module `mask_networks` beside this file: small segmenters and mask generators."""
    return _module("mask_networks")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Kind -> a checkpoint of it, saved once; not to be changed."""
    root = tmp_path_factory.mktemp("backbones")

    def saved(kind: str) -> Path:
        folder = root / ("stable-diffusion" if kind == "guided" else kind)
        return folder if folder.exists() else Path(_module("backbones").save(kind, folder))

    return saved


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained CLIP of a few words that reads 24x24 images, saved by transformers itself."""
    from transformers import CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    models = _module("backbones")
    folder = tmp_path_factory.mktemp("clip") / "clip"
    torch.manual_seed(0)
    text = models.text_config()
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = CLIPConfig(
        text_config=text,
        vision_config={n: text[n] for n in names} | {"image_size": 24, "patch_size": 8},
        projection_dim=8,
    )
    model = CLIPModel(config)
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    models.tokenizer().save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[FaultyS3]:
    """A real S3 server behind a proxy that can spoil answers."""
    pytest.importorskip("s3fs")
    from benchmarks.faulty_s3 import faulty_s3

    with faulty_s3() as server:
        yield server


@pytest.fixture
def bucket(s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket; the endpoint is given as a user gives it, by fsspec's configuration."""
    import fsspec
    import s3fs

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "DELTAH_STORE_PATIENCE_S"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(
        fsspec.config.conf,
        "s3",
        {"endpoint_url": s3.url, "config_kwargs": {"read_timeout": 1.0, "connect_timeout": 1.0}},
    )
    s3fs.S3FileSystem.clear_instance_cache()
    fsspec.filesystem("s3").mkdir(BUCKET)
    yield BUCKET
    s3.plan = None
    fsspec.filesystem("s3").rm(BUCKET, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
