"""Small trainings: an untrained 16x16 network, twelve pictures beside brighter ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import ImageEnhance

from pipelines.inputs import expand_inputs
from pipelines.training.claim import claim
from pipelines.training.config import TrainConfig
from pipelines.training.training import Order, never, train
from pipelines.training.world import Alone

Trainer = Callable[..., Path]
WIDE = {"block_out_channels": (16, 32), "norm_num_groups": 8}


@pytest.fixture(scope="session")
def pictures(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two shards of six pictures, each with `KEY.bright.png`."""
    folder = tmp_path_factory.mktemp("pictures")
    urls = []
    for shard in range(2):
        members = []
        for number in range(6):
            seed = 10 * shard + number
            picture = shards.picture(seed)
            brighter = ImageEnhance.Brightness(picture).enhance(1.3)
            members += [
                (f"p{seed:02d}.png", shards.encoded(picture)),
                (f"p{seed:02d}.bright.png", shards.encoded(brighter)),
            ]
        path = folder / f"pictures-{shard}.tar"
        path.write_bytes(shards.tar_bytes(members))
        urls.append(str(path))
    return urls


@pytest.fixture
def config(
    tiny_checkpoint: Path, pictures: list[str], tmp_path: Path
) -> Callable[..., TrainConfig]:
    """A config of a training; sections are laid over these."""

    def make(**sections: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "input": {"shards": pictures},
            "model": {"checkpoint": str(tiny_checkpoint)},
            "grid": {"num_steps": 6},
            "editor": {"kind": "delta_h", "name": "bright", "window": [900, 300]},
            "objective": [{"kind": "paired", "file": "bright.png"}],
            "training": {"steps": 8, "batch_size": 4, "checkpoint_every": 2},
            "output": {"folder": str(tmp_path / "out")},
        }
        return TrainConfig.model_validate(values | sections)

    return make


@pytest.fixture
def trained(tmp_path: Path) -> Trainer:
    """Trains a config in this process; returns its folder."""

    def run(config: TrainConfig, *, asked: Callable[[], bool] = never) -> Path:
        shards = expand_inputs(config.input.shards)
        order = Order(config, claim(config, shards), shards, tmp_path / "cache")
        train(order, Alone(), lambda _progress: None, asked=asked)
        return Path(config.output.folder)

    return run
