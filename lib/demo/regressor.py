"""Reads the 16 factors back from an image, so that the effect of an edit is a measured number.

Shape suffixes: B batch, F factors, C colours, H rows, W columns.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lib.demo.faces import FACTORS

IMAGE_SIZE = 64
DEFAULT_FOLDER = Path(__file__).parent / "model" / "regressor"


class Regressor(nn.Module):
    """A small CNN: image_BCHW float32 in [-1, 1], 64x64 -> factors_BF, in the order of FACTORS.

    The last 8x8 map is flattened, not averaged: half of the factors are positions.
    Outputs are not clipped; an edit that leaves the range of the generator reads beyond +-1.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 96, 128), hidden: int = 256) -> None:
        super().__init__()
        self.channels, self.hidden = channels, hidden
        blocks = list[nn.Module]()
        for i, (inward, outward) in enumerate(zip((3, *channels), channels, strict=False)):
            stride = 2 if i < 3 else 1
            blocks += [
                nn.Conv2d(inward, outward, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(outward),
                nn.SiLU(),
            ]
        self.features = nn.Sequential(*blocks, nn.Conv2d(channels[-1], 24, 1))
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(24 * (IMAGE_SIZE // 8) ** 2, hidden),
            nn.SiLU(),
            nn.Linear(hidden, len(FACTORS)),
        )

    def forward(self, image_BCHW: Tensor) -> Tensor:
        """factors_BF float32; raises ValueError unless images are RGB of 64x64 pixels."""
        if image_BCHW.ndim != 4 or image_BCHW.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            expected, got = (3, IMAGE_SIZE, IMAGE_SIZE), tuple(image_BCHW.shape)
            raise ValueError(
                f"images must have shape (B, *{expected}), got {got}; resize them first"
            )
        map_BCHW: Tensor = self.features(image_BCHW)
        factors_BF: Tensor = self.head(map_BCHW.float())
        return factors_BF


def save(model: Regressor, folder: Path) -> None:
    """Writes config.json and model.safetensors (fp16) into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"channels": model.channels, "hidden": model.hidden, "factors": FACTORS}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)


def load(folder: Path = DEFAULT_FOLDER) -> Regressor:
    """The trained regressor in float32 and evaluation mode, without gradients of its weights."""
    config = json.loads((folder / "config.json").read_text())
    if tuple(config["factors"]) != FACTORS:
        raise ValueError(f"{folder} was trained on factors {config['factors']}, expected {FACTORS}")
    model = Regressor(tuple(config["channels"]), config["hidden"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.float().eval().requires_grad_(False)


def determination(predicted_BF: Tensor, true_BF: Tensor) -> Tensor:
    """R2 of each factor, F float32: 1 - residual variance / variance of the true values."""
    residual_F = (predicted_BF - true_BF).square().sum(0)
    return 1 - residual_F / (true_BF - true_BF.mean(0)).square().sum(0)


@torch.no_grad()
def read(model: Regressor, image_BCHW: Tensor, batch_size: int = 64) -> Tensor:
    """The factors of any number of images, in batches: factors_BF float32."""
    return torch.cat([model(x_BCHW) for x_BCHW in torch.split(image_BCHW, batch_size)])
