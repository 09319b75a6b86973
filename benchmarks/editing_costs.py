"""What eight edits of a face cost by three flows: the published one, one that shares the way to the
edit timestep, and ours. Each runs in a process of its own, so that memory can be told apart.

Shape suffixes: as in `lib.denoiser`; E edits.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.embedded import Bench, held_out, load_bench
from lib.direction import Direction, stored
from lib.directions.direction_reach import parts_of_h
from lib.editing.edit_plan import every_strength
from lib.pixels import psnr
from lib.process_memory import peak_bytes
from lib.sampling.ddim import inversion
from lib.sampling.ddim_sampler import DdimSampler, step_mean
from lib.sampling.sampler import plain_latent
from lib.shift import Shift
from tasks.edit import Editor

EDITS = 8
NUM_STEPS = 50
HALF = 500
FLOWS = ("published", "shared", "ours")
INJECTION = "asymmetric"


@dataclass(frozen=True, slots=True)
class Variant:
    """Where the direction acts."""

    name: str
    reach: str
    lowest: int
    """Timestep at which the window ends; it begins at T/2."""


VARIANTS = (
    Variant("at t=T/2 alone", "found", HALF - 20),
    Variant("from T/2 to 0", "window", 0),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one flow, for all edits of one image."""

    flow: str
    evaluations: int
    """Counted on the network: a pass of the decoder half alone counts as one."""
    cpu_s: float
    peak_mib: float
    """Resident memory at its highest, above that of the loaded model after one forward."""
    x_ELYX: Tensor
    """The edited images before they are quantised."""
    same_start_ELYX: Tensor
    """Ours from the x_t of the other flows; elsewhere the same as `x_ELYX`."""
    psnr: float
    """Of the unedited image decoded from the flow's own x_t, dB."""


def costs(variant: Variant, num_steps: int = NUM_STEPS, edits: int = EDITS) -> list[Cost]:
    """Every flow in a process of its own, one after the other."""
    context = multiprocessing.get_context("spawn")
    found = []
    for flow in FLOWS:
        with ProcessPoolExecutor(1, context) as pool:
            found.append(pool.submit(measure, flow, variant, num_steps, edits).result())
    return found


def measure(flow: str, variant: Variant, num_steps: int, edits: int) -> Cost:
    """One flow, here."""
    torch.set_num_threads(1)
    bench = load_bench(num_steps)
    faces, _ = held_out(1)
    x0_BLYX = faces[0].image_CHW[None]
    window = (HALF, variant.lowest)
    shifts = _shifts(bench, window, edits)
    run = {"published": _published, "shared": _shared, "ours": _ours}[flow]
    with torch.no_grad():
        bench.denoiser.predict(x0_BLYX, 0)
        loaded = peak_bytes()
        with counted() as count:
            began = time.process_time()
            x_ELYX = run(bench, x0_BLYX, shifts, variant)
            cpu_s = time.process_time() - began
        peak = peak_bytes()
        start_BLYX, same_ELYX = _way_down_to_top(bench, x0_BLYX, window), x_ELYX
        if flow == "ours":
            same_ELYX = _decoded(bench, start_BLYX, shifts, variant)
            start_BLYX = _up(bench, x0_BLYX, bench.grid.last_node(HALF))
        top = bench.grid.last_node(HALF)
        back_BLYX = _down(bench, start_BLYX, top, 0, None, variant)
    fidelity = psnr(back_BLYX[0], x0_BLYX[0])
    return Cost(flow, count(), cpu_s, (peak - loaded) / 2**20, x_ELYX, same_ELYX, fidelity)


@contextmanager
def counted() -> Iterator[Callable[[], int]]:
    """Counts the rows that leave the network: those of its last convolution, the only one with as
    many channels as the image.
    """
    rows = 0

    def hook(module: nn.Module, _args: object, output: object) -> None:
        nonlocal rows
        if isinstance(module, nn.Conv2d) and module.out_channels == 3:
            rows += len(output)  # type: ignore[arg-type]

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        yield lambda: rows
    finally:
        handle.remove()


def _shifts(bench: Bench, window: tuple[int, int], count: int) -> list[Shift]:
    """Random directions of h, found at the top of the window: what they change costs the same."""
    t = bench.grid.timestep(bench.grid.last_node(window[0]))
    generator = torch.Generator().manual_seed(7)
    found = []
    for i in range(count):
        vector_SCYX = torch.randn(1, *bench.denoiser.h_shape, generator=generator)
        direction = Direction(
            stored(vector_SCYX, "float32"), str(i), "h", "after", bench.weights, (t,), "random", {},
            "image", "", None, None, None, 0, 0.0, None, None, None, True, 0, 0, "",
            bench.h_norms[t],
        )  # fmt: skip
        found.append(Shift(direction, 0.4 if i % 2 else -0.4))
    return found


def _published(bench: Bench, x0_BLYX: Tensor, shifts: Sequence[Shift], variant: Variant) -> Tensor:
    """Every edit inverts to T and samples from T, alone."""
    last = bench.grid.num_steps
    images = []
    for shift in shifts:
        x_BLYX = _up(bench, x0_BLYX, last)
        images.append(_down(bench, x_BLYX, last, 0, shift, variant))
    return torch.cat(images)


def _shared(bench: Bench, x0_BLYX: Tensor, shifts: Sequence[Shift], variant: Variant) -> Tensor:
    """Inverts to T and comes down to the edit timestep once; the edits go on from there alone."""
    window = (HALF, variant.lowest)
    x_BLYX = _way_down_to_top(bench, x0_BLYX, window)
    top = bench.grid.last_node(HALF)
    return torch.cat([_down(bench, x_BLYX, top, 0, shift, variant) for shift in shifts])


def _ours(bench: Bench, x0_BLYX: Tensor, shifts: Sequence[Shift], variant: Variant) -> Tensor:
    """Inverts to the edit timestep; one batch goes down from there, the reconstruction with it."""
    x_BLYX = _up(bench, x0_BLYX, bench.grid.last_node(HALF))
    return _decoded(bench, x_BLYX, shifts, variant)


def _decoded(bench: Bench, x_BLYX: Tensor, shifts: Sequence[Shift], variant: Variant) -> Tensor:
    editor = Editor(
        bench.denoiser,
        bench.grid,
        window=(HALF, variant.lowest),
        injection=INJECTION,
        sampler=DdimSampler(),
        plan=every_strength((1.0,)),
        batch_size=16,
        h_norms=bench.h_norms,
        reach=variant.reach,
    )
    return editor.decoder(plain_latent(x_BLYX[0]), shifts).x_BLYX[1:]


def _up(bench: Bench, x0_BLYX: Tensor, last: int) -> Tensor:
    steps = inversion(bench.denoiser.predict, bench.grid, x0_BLYX, last=last, refinements=0)
    *_, (_, x_BLYX) = steps
    return x_BLYX


def _way_down_to_top(bench: Bench, x0_BLYX: Tensor, window: tuple[int, int]) -> Tensor:
    last, top = bench.grid.num_steps, bench.grid.last_node(window[0])
    return _down(bench, _up(bench, x0_BLYX, last), last, top, None, VARIANTS[0])


def _down(
    bench: Bench, x_BLYX: Tensor, first: int, last: int, shift: Shift | None, variant: Variant
) -> Tensor:
    """Asyrp's sampling, written down: one prediction for the step back, one with the shift for the
    predicted x_0 where it acts.
    """
    window = (HALF, variant.lowest)
    for node in range(first, last, -1):
        t = bench.grid.timestep(node)
        back_BLYX = forward_BLYX = bench.denoiser.predict(x_BLYX, t)
        if shift is not None:
            own = shift.direction
            parts = parts_of_h(own, bench.grid, window, INJECTION, variant.reach)
            for weight, step in parts.get(node, ()):
                length = shift.strength * weight * bench.h_norms[t]
                shift_BCYX = length * own.vector_SCYX[step][None]
                forward_BLYX = bench.denoiser.predict_shifted(x_BLYX, t, shift_BCYX)
        x_BLYX = step_mean(x_BLYX, forward_BLYX, back_BLYX, bench.grid, node)
    return x_BLYX
