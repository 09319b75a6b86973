"""Images to x_t and back by every method, published and ours: `python -m benchmarks.inversion`.

Shape suffixes: as in `lib.sampling.sampler`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log10
from pathlib import Path
from time import process_time
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.embedded import held_out
from benchmarks.machine import describe
from benchmarks.published_grids import Network, asyrp, diffusers_pair, haas, park_loco
from benchmarks.stage_cache import kept
from lib.models.backbones import load_network
from lib.models.checkpoint import EMBEDDED, open_checkpoint, weights_sha256
from lib.records import Sample
from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import constant_eta
from lib.sampling.grid import Grid, training_alphas
from lib.sampling.grid import make_grid as grid_of
from lib.sampling.sampler import Inversion, Sampler

BATCH = 8
DECODE_BATCH = 1
"""Other than in inversion, as in a run that edits: kernels round differently, which is what exact
schemes lose by. In equal batches they lose nothing.
"""
LEAST_LOSS = 1e-16
"""160 dB: float32 can say no more."""
STEPS = (10, 25, 50, 100)
MIDDLE = 500


@dataclass(frozen=True, slots=True)
class Way:
    """A sampler on our grid, up to a timestep."""

    sampler: Sampler
    highest: int = 999


METHODS: dict[str, Callable[..., tuple[Tensor, Tensor]] | Way] = {
    "Asyrp, DiffusionCLIP": asyrp,
    "Pullback, LOCO": park_loco,
    "Haas": haas,
    "diffusers pair": diffusers_pair,
    "aligned": Way(DdimSampler()),
    "fixed point 2": Way(DdimSampler(1)),
    "fixed point 3": Way(DdimSampler(2)),
    "EDICT": Way(EdictSampler()),
    "BDIA": Way(BdiaSampler()),
    "DDPM, eta 1": Way(DdpmSampler(constant_eta(1.0))),
    "aligned to T/2": Way(DdimSampler(), MIDDLE),
    "fixed point 2 to T/2": Way(DdimSampler(1), MIDDLE),
    "BDIA to T/2": Way(BdiaSampler(), MIDDLE),
}
"""Fixed point n: n evaluations a node, `refinements` n - 1. The pair of diffusers is our aligned
grid with spacing `leading`, which ends a step below the last timestep; the others reach it.
"""


@dataclass(frozen=True, slots=True)
class Trip:
    """A batch of faces, there and back."""

    psnr: tuple[float, ...]
    """dB, of images in [-1, 1], neither clamped nor rounded."""
    top_std: tuple[float, ...]
    """Of x_t where inversion ends, over the entries of an image."""
    evaluations: float
    """Of the network, an image."""
    seconds: float
    """CPU, an image."""


class Counting:
    """The embedded network; counts the images it is shown."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self.images = 0

    def __call__(self, x_BLYX: Tensor, t: float) -> Tensor:
        """eps(x_t, t)."""
        self.images += len(x_BLYX)
        return self._network(x_BLYX, t)


def embedded_network() -> Network:
    """The embedded U-Net, which also takes timesteps in between."""
    unet = load_network(open_checkpoint(EMBEDDED).unet).eval()

    def network(x_BLYX: Tensor, t: float) -> Tensor:
        eps_BLYX: Tensor = unet(x_BLYX, torch.tensor(float(t))).sample
        return eps_BLYX

    return network


@torch.no_grad()
def trip(network: Network, name: str, num_steps: int, faces: Sequence[Sample]) -> Trip:
    """`faces` there and back by METHODS[name]."""
    scheduler, method = open_checkpoint(EMBEDDED).scheduler_config, METHODS[name]
    x0_BLYX = torch.stack([face.image_CHW for face in faces])
    counting, begin = Counting(network), process_time()
    if isinstance(method, Way):
        grid = grid_of(scheduler, num_steps, "linspace")
        last, seeds = grid.last_node(method.highest), [face.seed for face in faces]
        found = method.sampler.invert(counting, grid, x0_BLYX, last=last, wanted=(), seeds=seeds)
        back_BLYX = _decoded(method.sampler, counting, grid, found, last)
        top_BLYX = found.states_SBLYX[0].float()
    else:
        alphas_T = training_alphas(scheduler).tolist()
        top_BLYX, back_BLYX = method(counting, alphas_T, num_steps, x0_BLYX)
    seconds = process_time() - begin
    loss_B = (back_BLYX - x0_BLYX).double().square().flatten(1).mean(dim=1)
    return Trip(
        tuple(10 * log10(4 / max(float(loss), LEAST_LOSS)) for loss in loss_B),
        tuple(top_BLYX.flatten(1).std(dim=1).tolist()),
        counting.images / len(faces),
        seconds / len(faces),
    )


def _decoded(sampler: Sampler, network: Network, grid: Grid, found: Inversion, last: int) -> Tensor:
    parts = []
    for rows in torch.arange(found.states_SBLYX.shape[1]).split(DECODE_BATCH):
        states_SBLYX = found.states_SBLYX[:, rows]
        for node in range(last, 0, -1):
            t, noise_BLYX = grid.timestep(node), found.noises.get(node)

            def steer(x_BLYX: Tensor, t: int = t) -> tuple[Tensor, Tensor]:
                eps_BLYX = network(x_BLYX.float(), t)
                return eps_BLYX, eps_BLYX

            noise = None if noise_BLYX is None else noise_BLYX[rows]
            states_SBLYX = sampler.step(steer, grid, node, states_SBLYX, noise)
        parts.append(states_SBLYX[0].float())
    return torch.cat(parts)


def main(
    faces: Annotated[int, typer.Option(help="Held-out faces.")] = 16,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for finished batches; a stopped run goes on.")
    ] = None,
    steps: Annotated[list[int], typer.Option(help="N; several.")] = list(STEPS),  # noqa: B006
    without: Annotated[
        list[str] | None, typer.Option(help="A method to leave out; several.")
    ] = None,
) -> None:
    """Print one table for each N."""
    unknown = sorted(set(without or ()) - METHODS.keys())
    if unknown:
        raise typer.BadParameter(f"no method {unknown[0]!r}; there are {', '.join(METHODS)}")
    torch.set_num_threads(1)
    network, weights = embedded_network(), weights_sha256(open_checkpoint(EMBEDDED))
    samples, _ = held_out(faces)
    print(describe())
    print(
        f"{faces} held-out faces, inverted in batches of {BATCH}, decoded in batches of"
        f" {DECODE_BATCH} (ours); PSNR in dB, images in [-1, 1],\nneither clamped nor rounded;"
        " evaluations of the network and CPU seconds an image; std of x_t where inversion ends"
    )
    for num_steps in steps:
        print(f"\nN = {num_steps:<21}  mean PSNR  worst PSNR  evaluations  std x_t  CPU s")
        for name in (name for name in METHODS if name not in (without or ())):
            trips = []
            for begin in range(0, faces, BATCH):
                batch = samples[begin : begin + BATCH]

                def make(
                    name: str = name, num_steps: int = num_steps, batch: list[Sample] = batch
                ) -> Trip:
                    return trip(network, name, num_steps, batch)

                settings = (name, num_steps, begin, len(batch), weights, DECODE_BATCH)
                trips.append(kept(cache, "inversion", settings, make))
            print(_row(name, trips), flush=True)


def _row(name: str, trips: Sequence[Trip]) -> str:
    psnr = [value for t in trips for value in t.psnr]
    std = [value for t in trips for value in t.top_std]
    seconds = sum(t.seconds for t in trips) / len(trips)
    return (
        f"{name:25}  {sum(psnr) / len(psnr):9.1f}  {min(psnr):10.1f}  {trips[0].evaluations:11.0f}"
        f"  {sum(std) / len(std):7.2f}  {seconds:5.2f}"
    )


if __name__ == "__main__":
    typer.run(main)
