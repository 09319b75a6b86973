"""A config of a small training on disk, for the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from PIL import ImageEnhance

Written = Callable[..., Path]


@pytest.fixture
def written(shards: ModuleType, tiny_checkpoint: Path, tmp_path: Path) -> Written:
    """Writes `NAME.yaml` with sections laid over a small training's, and the shard it reads."""
    members = []
    for seed in range(8):
        picture = shards.picture(seed)
        brighter = ImageEnhance.Brightness(picture).enhance(1.3)
        members += [
            (f"p{seed}.png", shards.encoded(picture)),
            (f"p{seed}.bright.png", shards.encoded(brighter)),
        ]
    tar = tmp_path / "pictures.tar"
    tar.write_bytes(shards.tar_bytes(members))

    def write(name: str, **sections: Any) -> Path:
        values: dict[str, Any] = {
            "input": {"shards": [str(tar)]},
            "model": {"checkpoint": str(tiny_checkpoint)},
            "grid": {"num_steps": 6},
            "editor": {
                "kind": "delta_h", "name": "bright", "window": [900, 0], "learning_rate": 0.01,
            },
            "objective": [{"kind": "paired", "file": "bright.png"}],
            "training": {"steps": 5, "batch_size": 8},
            "output": {"folder": str(tmp_path / name)},
        }  # fmt: skip
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values | sections))
        return path

    return write
