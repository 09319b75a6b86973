"""Trains the demo model: the denoiser of the faces, and the regressor that reads their factors.

The commands, their seeds and their log are part of the repository, so that anyone can retrain it.
Shape suffixes: B batch, N images, C colours, H rows, W columns, F factors.
"""

import copy
import hashlib
import json
import logging
import math
import os
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import diffusers
import torch
import typer
from torch import Tensor, nn

from lib.demo.faces import FACTORS, render, sample_factors
from lib.demo.regressor import Regressor, determination, read
from lib.demo.regressor import save as save_regressor

DATA_SEED, REGRESSOR_TEST_SEED = 1000, 77
BATCH_SIZE = 32
DENOISER_RATE, REGRESSOR_RATE, FINAL_RATE_FRACTION, WARMUP_STEPS = 8e-4, 2e-3, 0.02, 100
LOG_EVERY_STEPS, SAVE_EVERY_S = 50, 600.0

app = typer.Typer(add_completion=False, no_args_is_help=True)
logger = logging.getLogger(__name__)
library: Any = diffusers


def build_denoiser() -> Any:
    """A UNet2DModel: 64x64 epsilon predictor of 3.5 M parameters; its mid block is 128x8x8.

    Any, because the library's classes are untyped.
    """
    return library.UNet2DModel(
        sample_size=64,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 96, 128),
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        attention_head_dim=32,
        norm_num_groups=16,
    )


def build_scheduler() -> Any:
    """A DDPMScheduler, the process that is inverted: 1000 steps, linear variances, no clipping."""
    return library.DDPMScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        prediction_type="epsilon",
        clip_sample=False,
    )


def render_training_images(num_images: int, seed: int = DATA_SEED) -> tuple[Tensor, Tensor]:
    """Faces rendered once: factors_NF float32 and image_NCHW uint8."""
    factors_NF = sample_factors(num_images, seed)
    image_NCHW = torch.empty(num_images, 3, 64, 64, dtype=torch.uint8)
    for first in range(0, num_images, BATCH_SIZE):
        x_BCHW = render(factors_NF[first : first + BATCH_SIZE]).image_BCHW
        image_NCHW[first : first + BATCH_SIZE] = ((x_BCHW + 1) * 127.5).round().to(torch.uint8)
    return factors_NF, image_NCHW


def learning_rate(peak: float, step: int, progress: float) -> float:
    """Warm-up over steps, then a cosine over progress, the elapsed fraction of the wall clock.

    The clock, not a step count, ends the cosine, so a slow machine still anneals completely.
    """
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    decay = FINAL_RATE_FRACTION + (1 - FINAL_RATE_FRACTION) * cosine
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * decay


def stratified_timesteps(num_timesteps: int, generator: torch.Generator) -> Tensor:
    """One timestep B (int64) from each of BATCH_SIZE equal intervals: a less noisy loss."""
    offset_B = torch.rand(BATCH_SIZE, generator=generator)
    return ((torch.arange(BATCH_SIZE) + offset_B) / BATCH_SIZE * num_timesteps).long()


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Moves the exponential moving average of the weights; its memory grows with the steps."""
    keep = min(0.999, (1 + step) / (20 + step))
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)


def save_denoiser(average: Any, out: Path) -> str:
    """Writes a diffusers DDPMPipeline in fp16; returns the SHA-256 of the weights file.

    Every file is complete before it takes its final name, so a reader never meets half a model.
    """
    index = {
        "_class_name": "DDPMPipeline",
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    with tempfile.TemporaryDirectory(dir=out, prefix=".saving-") as name:
        staging = Path(name)
        copy.deepcopy(average).half().save_pretrained(staging / "unet")
        build_scheduler().save_pretrained(staging / "scheduler")
        (staging / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
        for source in sorted(path for path in staging.rglob("*") if path.is_file()):
            target = out / source.relative_to(staging)
            target.parent.mkdir(exist_ok=True)
            source.replace(target)
            target.chmod(0o644)
    weights = out / "unet" / "diffusion_pytorch_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def train_denoiser(minutes: float, out: Path, seed: int, num_images: int) -> None:
    """Minimises |epsilon - model(x_t, t)|^2 (Ho et al. 2020, eq. 14) until the time is used up.

    minutes counts the training alone; rendering num_images faces comes before it.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, scheduler = build_denoiser(), build_scheduler()
    average = copy.deepcopy(model).requires_grad_(False)
    logger.info(
        "denoiser: parameters=%d minutes=%g seed=%d data_seed=%d images=%d torch=%s",
        sum(p.numel() for p in model.parameters()), minutes, seed, DATA_SEED, num_images,
        torch.__version__,
    )  # fmt: skip
    started = time.monotonic()
    _, image_NCHW = render_training_images(num_images)
    logger.info("rendered images=%d in %.0f s", num_images, time.monotonic() - started)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=DENOISER_RATE, betas=(0.9, 0.99), weight_decay=0.0
    )
    started = saved = reported = time.monotonic()
    step, losses, order_N = 0, list[float](), torch.empty(0, dtype=torch.int64)
    while (elapsed := time.monotonic() - started) < minutes * 60:
        if len(order_N) < BATCH_SIZE:
            order_N = torch.randperm(num_images, generator=generator)
        pick_B, order_N = order_N[:BATCH_SIZE], order_N[BATCH_SIZE:]
        x_BCHW = image_NCHW[pick_B].float() / 127.5 - 1
        noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
        t_B = stratified_timesteps(scheduler.config.num_train_timesteps, generator)
        x_t_BCHW = scheduler.add_noise(x_BCHW, noise_BCHW, t_B)
        with torch.autocast("cpu", torch.bfloat16):
            eps_BCHW = model(x_t_BCHW, t_B).sample
        loss = nn.functional.mse_loss(eps_BCHW.float(), noise_BCHW)
        rate = learning_rate(DENOISER_RATE, step, elapsed / (minutes * 60))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        update_average(average, model, step)
        step += 1
        losses.append(loss.item())
        if step % LOG_EVERY_STEPS == 0:
            now = time.monotonic()
            logger.info(
                "step=%d images=%d loss=%.4f lr=%.2e images_per_s=%.1f elapsed_s=%.0f",
                step, step * BATCH_SIZE, sum(losses) / len(losses), rate,
                LOG_EVERY_STEPS * BATCH_SIZE / (now - reported), now - started,
            )  # fmt: skip
            losses, reported = [], now
        if time.monotonic() - saved > SAVE_EVERY_S:
            logger.info("checkpoint step=%d sha256=%s", step, save_denoiser(average, out))
            saved = time.monotonic()
    digest = save_denoiser(average, out)
    logger.info("finished step=%d images=%d sha256=%s", step, step * BATCH_SIZE, digest)


def disturb(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Slight blur and noise, of a strength drawn per image, as reconstructions have them."""
    shape = (len(x_BCHW), 1, 1, 1)
    blur_B111 = 0.7 * torch.rand(shape, generator=generator) ** 2
    noise_B111 = 0.08 * torch.rand(shape, generator=generator) ** 2
    soft_BCHW = nn.functional.avg_pool2d(x_BCHW, 3, 1, 1, count_include_pad=False)
    noise_BCHW = torch.randn(x_BCHW.shape, generator=generator)
    return torch.lerp(x_BCHW, soft_BCHW, blur_B111) + noise_B111 * noise_BCHW


def train_regressor(minutes: float, out: Path, seed: int, num_images: int) -> None:
    """Minimises the squared error of all factors on disturbed faces until the time is used up.

    minutes counts the training alone; rendering num_images faces comes before it.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    model, test_BF = Regressor(), sample_factors(512, REGRESSOR_TEST_SEED)
    logger.info(
        "regressor: parameters=%d minutes=%g seed=%d data_seed=%d images=%d torch=%s",
        sum(p.numel() for p in model.parameters()), minutes, seed, DATA_SEED, num_images,
        torch.__version__,
    )  # fmt: skip
    factors_NF, image_NCHW = render_training_images(num_images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=REGRESSOR_RATE, weight_decay=1e-3)
    started, step, losses = time.monotonic(), 0, list[float]()
    while (elapsed := time.monotonic() - started) < minutes * 60:
        pick_B = torch.randint(num_images, (2 * BATCH_SIZE,), generator=generator)
        x_BCHW = disturb(image_NCHW[pick_B].float() / 127.5 - 1, generator)
        with torch.autocast("cpu", torch.bfloat16):
            map_BCHW = model.features(x_BCHW)
        loss = nn.functional.mse_loss(model.head(map_BCHW.float()), factors_NF[pick_B])
        rate = learning_rate(REGRESSOR_RATE, step, elapsed / (minutes * 60))
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        losses.append(loss.item())
        if step % (2 * LOG_EVERY_STEPS) == 0:
            mean = sum(losses) / len(losses)
            logger.info("step=%d loss=%.5f lr=%.2e elapsed_s=%.0f", step, mean, rate, elapsed)
            losses = []
    save_regressor(model, out / "regressor")
    r2_F = determination(read(model.eval(), render(test_BF).image_BCHW), test_BF)
    text = " ".join(f"{name}={r2:.4f}" for name, r2 in zip(FACTORS, r2_F.tolist(), strict=True))
    logger.info("finished step=%d R2 on %d unseen faces: %s", step, len(test_BF), text)


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handlers: list[logging.Handler] = [
        logging.FileHandler(path, mode="w"),
        logging.StreamHandler(),
    ]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", handlers=handlers)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    torch.set_flush_denormal(True)


@app.command()
def denoiser(
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    minutes: Annotated[float, typer.Option(help="Wall-clock minutes of training.")] = 80.0,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.")] = 0,
    num_images: Annotated[int, typer.Option(help="Faces rendered beforehand.")] = 24_000,
) -> None:
    """Train the denoiser for a given time and write it in diffusers format."""
    _log_to(out / "training-log.txt")
    train_denoiser(minutes, out, seed, num_images)


@app.command()
def regressor(
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    minutes: Annotated[float, typer.Option(help="Wall-clock minutes of training.")] = 6.0,
    seed: Annotated[int, typer.Option(help="Seed of weights, batches and noise.")] = 0,
    num_images: Annotated[int, typer.Option(help="Faces rendered beforehand.")] = 16_000,
) -> None:
    """Train the regressor that reads the factors back from an image."""
    _log_to(out / "regressor" / "training-log.txt")
    train_regressor(minutes, out, seed, num_images)


if __name__ == "__main__":
    app()
