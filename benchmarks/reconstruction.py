"""Reconstruction PSNR of the embedded model after DDIM inversion: `python -m
benchmarks.reconstruction`.
"""

from __future__ import annotations

import torch
import typer

from benchmarks.embedded import held_out, load_bench
from benchmarks.machine import describe
from lib.pixels import psnr
from lib.sampling.ddim import decoding, inversion, round_trip_error

SETTINGS = ((20, 0), (20, 2), (50, 0), (100, 0))


@torch.no_grad()
def reconstruction_psnr(faces: int, num_steps: int, refinements: int) -> list[float]:
    """PSNR in dB of `faces` held-out faces, inverted to the last timestep and decoded."""
    bench = load_bench(num_steps)
    samples, _ = held_out(faces)
    values = []
    for begin in range(0, faces, 8):
        x0_BLYX = torch.stack([s.image_CHW for s in samples[begin : begin + 8]])
        steps = inversion(
            bench.denoiser.predict, bench.grid, x0_BLYX, last=num_steps, refinements=refinements
        )
        *_, (_, x_BLYX) = steps
        back_BLYX = decoding(bench.denoiser.predict, bench.grid, x_BLYX, first=num_steps)
        values += [psnr(b.clamp(-1, 1), x0) for b, x0 in zip(back_BLYX, x0_BLYX, strict=True)]
    return values


def main(faces: int = 16) -> None:
    """Print mean and worst PSNR for each setting."""
    torch.set_num_threads(1)
    print(describe())
    print(f"{faces} held-out faces; PSNR in dB, images in [-1, 1]")
    print("steps  refinements  evaluations   mean  worst  constant-eps round trip")
    for num_steps, refinements in SETTINGS:
        values = reconstruction_psnr(faces, num_steps, refinements)
        error = round_trip_error(load_bench(num_steps).grid)
        evaluations = num_steps * (2 + refinements)
        print(
            f"{num_steps:5d}  {refinements:11d}  {evaluations:11d}  {sum(values) / faces:5.1f}"
            f"  {min(values):5.1f}  {error:.1e}"
        )


if __name__ == "__main__":
    typer.run(main)
