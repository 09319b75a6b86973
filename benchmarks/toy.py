"""A 32-pixel face denoiser, trained from scratch in minutes on one core: a second network, of
another architecture than the embedded one, on which to measure. Kept in a cache folder under a name
that holds the recipe.

    python -m benchmarks.toy --cache FOLDER

Shape suffixes: B batch, N images, C colours, H rows, W columns.
"""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import diffusers
import torch
import typer
from torch import Tensor, nn

from lib.demo.faces import render, sample_factors
from lib.demo.training import (
    BATCH_SIZE,
    build_scheduler,
    learning_rate,
    save_denoiser,
    stratified_timesteps,
    update_average,
)
from lib.models.checkpoint import Checkpoint, open_checkpoint

SIZE = 32
DEFAULT_CACHE = Path(tempfile.gettempdir()) / "deltah-benchmarks"
library: Any = diffusers


@dataclass(frozen=True, slots=True)
class Recipe:
    """All that decides the weights."""

    steps: int = 380
    images: int = 4096
    rate: float = 2e-3
    seed: int = 0
    data_seed: int = 1000
    version: int = 1
    """Raised when the training below changes."""

    @property
    def key(self) -> str:
        """Twelve hex digits of the recipe's content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def build_unet() -> Any:
    """A UNet2DModel: 32x32, 3.0 M parameters, attention at 8x8 and in the middle; h is 128x4x4.

    Any, because the library's classes are untyped.
    """
    return library.UNet2DModel(
        sample_size=SIZE,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 64, 128),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        attention_head_dim=16,
        norm_num_groups=16,
    )


def toy_checkpoint(cache: Path, recipe: Recipe | None = None) -> Checkpoint:
    """The trained toy in diffusers format; trains it where `cache` does not hold it yet."""
    recipe = recipe or Recipe()
    folder = cache / f"toy-{recipe.key}"
    if not (folder / "model_index.json").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".training-") as name:
            save_denoiser(train(recipe), Path(name))
            # Another process may have finished first; its weights are the same.
            if not folder.exists():
                Path(name).rename(folder)
                Path(name).mkdir()
    return open_checkpoint(str(folder))


def train(recipe: Recipe) -> Any:
    """The averaged weights after `recipe.steps` steps on |epsilon - model(x_t, t)|^2 (Ho et al.
    2020, eq. 14), in bfloat16 where autocast allows it.
    """
    torch.manual_seed(recipe.seed)
    generator = torch.Generator().manual_seed(recipe.seed)
    model, scheduler = build_unet(), build_scheduler()
    average = copy.deepcopy(model).requires_grad_(False)
    image_NCHW = render(sample_factors(recipe.images, recipe.data_seed), SIZE).image_BCHW
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    losses: list[float] = []
    for step in range(recipe.steps):
        loss = _loss(model, scheduler, image_NCHW, generator)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe.rate, step, step / recipe.steps)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, step)
        losses.append(loss.item())
        if (step + 1) % 20 == 0:
            print(f"toy: step {step + 1}/{recipe.steps}, loss {sum(losses) / len(losses):.4f}")
            losses = []
    return average.eval()


def _loss(model: Any, scheduler: Any, image_NCHW: Tensor, generator: torch.Generator) -> Tensor:
    pick_B = torch.randint(len(image_NCHW), (BATCH_SIZE,), generator=generator)
    x_BCHW = image_NCHW[pick_B]
    noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
    t_B = stratified_timesteps(scheduler.config.num_train_timesteps, generator)
    x_t_BCHW = scheduler.add_noise(x_BCHW, noise_BCHW, t_B)
    with torch.autocast("cpu", torch.bfloat16):
        eps_BCHW = model(x_t_BCHW, t_B).sample
    return nn.functional.mse_loss(eps_BCHW.float(), noise_BCHW)


def main(cache: Path = DEFAULT_CACHE) -> None:
    """Train the toy if it is not there, and print where it lies."""
    torch.set_num_threads(1)
    print(toy_checkpoint(cache).folder)


if __name__ == "__main__":
    typer.run(main)
