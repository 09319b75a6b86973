"""Counts, time and memory in the architecture of google/ddpm-celebahq-256, with random weights.

Random weights have no truth worth a table; what a product costs and what it holds do not depend on
them.
"""

from __future__ import annotations

import time

import torch

from benchmarks.costs import held, network
from benchmarks.methods import ours
from benchmarks.published import sequential_power
from benchmarks.scenes import Scene
from benchmarks.whole_network import WholeNetwork
from lib.process_memory import peak_bytes

TOLERANCE = 0.1
"""The default of the config."""
PUBLISHED_LIMIT = 50
"""Iterations a vector that the published script allows."""


def at_real_size(scene: Scene, count: int, regions: int, chunk: int, max_rounds: int) -> None:
    """Print our run, whole, and one iteration of sequential power, on one image."""
    parts = network(scene)
    weights = sum(p.numel() for p in scene.unet.parameters())
    print(
        f"{weights / 1e6:.1f} M parameters, random; k={count}, R={regions}, tolerance {TOLERANCE},"
        f" at most {max_rounds} rounds, chunks of {chunk}; D = {parts.decoder_flops / 1e9:.0f}"
        f" GFLOP, e = {parts.encoder:.2f}; resident before {_peak_gib():.2f} GiB",
        flush=True,
    )
    started = time.monotonic()
    row, _ = ours(scene, parts, regions, count, TOLERANCE, chunk=chunk, max_rounds=max_rounds)
    print(
        f"ours: {row.decoders:.0f} D, {row.jvps} jvp + {row.vjps} vjp, {row.cpu_s:.0f} CPU s,"
        f" {time.monotonic() - started:.0f} s by the clock, held {row.held / 2**20:.0f} MiB, peak"
        f" of the process {_peak_gib():.2f} GiB, estimated angle {row.estimate:.2g},"
        f" {'converged' if row.reached else 'not converged'}",
        flush=True,
    )
    jacobian, kept = held(scene, lambda: WholeNetwork(scene))
    started = time.process_time()
    sequential_power(
        jacobian,
        scene.masks_RN[0],
        [1],
        tolerance=-1,
        generator=torch.Generator().manual_seed(0),
    )
    iteration_s = time.process_time() - started
    most = PUBLISHED_LIMIT * count * regions
    print(
        f"sequential power, whole U-Net: {parts.power(1):.2f} D and {iteration_s:.0f} CPU s an"
        f" iteration, held {kept / 2**20:.0f} MiB; at its limit of {PUBLISHED_LIMIT} iterations a"
        f" vector {parts.power(most):.0f} D, {most * iteration_s:.0f} CPU s (scaled)"
    )


def _peak_gib() -> float:
    return peak_bytes() / 2**30
