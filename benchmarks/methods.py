"""One row a method: the published ones counted on the exact singular values and timed on the real
network, ours run as the tasks run it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.costs import Calls, Network, held, overhead
from benchmarks.oracle import Exact, true_angle, value_error
from benchmarks.published import (
    Counted,
    block_subspace,
    cheapest_block,
    cheapest_power,
    sequential_power,
    usual,
)
from benchmarks.scenes import Scene
from benchmarks.whole_network import WholeNetwork
from lib.discovery.jacobian import Jacobian, h_jacobian
from lib.discovery.subspace import Spectrum, top_directions

CHUNK = 8
OVERSAMPLING = 5
LIMIT = 2000
"""Iterations a vector that a published method is given to reach the angle."""
STARTS = range(5)
"""Seeds of the random starts that are counted; the median counts."""
LOOSER = (10.0, 5.0, 2.0, 1.0)
"""Tolerances tried for the row that knows the truth, in units of the angle."""


@dataclass(frozen=True, slots=True)
class Row:
    """One method on one task."""

    method: str
    decoders: float
    jvps: int
    vjps: int
    cpu_s: float
    scaled: bool
    """Whether `cpu_s` is iterations x measured seconds an iteration."""
    held: int
    """Bytes kept beside the weights."""
    angle: float
    estimate: float | None
    value_error: float
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Pace:
    """Measured CPU seconds an iteration through the whole network."""

    power_s: float
    block_s: dict[int, float]
    held: int


def engine(scene: Scene, chunk: int) -> Jacobian:
    """Our Jacobian at the scene's point, from one encode."""
    with torch.no_grad():
        point = scene.denoiser.encode(scene.x_BLYX, scene.t)
    return h_jacobian(scene.denoiser, point, scene.alpha, chunk=chunk)


def ours(
    scene: Scene,
    parts: Network,
    regions: int,
    count: int,
    tolerance: float,
    *,
    chunk: int = CHUNK,
    max_rounds: int = 60,
) -> tuple[Row, tuple[Spectrum, ...]]:
    """The engine as tasks call it; angle and error are filled in by `judged`."""
    started = time.process_time()
    jacobian, kept = held(scene, lambda: engine(scene, chunk))
    calls = Calls(jacobian)
    spectra = top_directions(
        calls,
        scene.masks_RN[:regions],
        [count] * regions,
        tolerance=tolerance,
        max_rounds=max_rounds,
        generator=torch.Generator().manual_seed(0),
    ).spectra
    cpu_s = time.process_time() - started
    chunks = sum(-(-size // chunk) for size in calls.jvp_batches)
    a_chunk = overhead(jacobian, parts)
    row = Row(
        "ours, own estimate",
        calls.jvp_count + a_chunk * chunks + calls.vjp_count,
        calls.jvp_count,
        calls.vjp_count,
        cpu_s,
        False,
        kept,
        1.0,
        max(s.angle for s in spectra),
        1.0,
        all(s.converged for s in spectra),
    )
    return row, spectra


def judged(row: Row, spectra: Sequence[Spectrum], exact: Sequence[Exact]) -> Row:
    """`row` with its true angle and error, the worst of its regions."""
    pairs = list(zip(spectra, exact, strict=False))
    return replace(
        row,
        angle=max(true_angle(s.V_KD, e) for s, e in pairs),
        value_error=max(value_error(s.S_K, e) for s, e in pairs),
    )


def pace(scene: Scene, sizes: Sequence[int]) -> Pace:
    """Seconds an iteration of the published methods: of 10 (power) and 3 (block), after one."""
    jacobian, kept = held(scene, lambda: WholeNetwork(scene))
    mask_N, generator = scene.masks_RN[0], torch.Generator().manual_seed(0)

    def power(iterations: int) -> None:
        sequential_power(jacobian, mask_N, [iterations], tolerance=-1, generator=generator)

    def block(size: int, iterations: int) -> None:
        block_subspace(
            jacobian, mask_N, size, oversampling=0, done=lambda _: False,
            max_iterations=iterations, generator=generator,
        )  # fmt: skip

    def timed(run: Callable[..., None], *args: int) -> float:
        started = time.process_time()
        run(*args)
        return time.process_time() - started

    power(1)
    power_s = timed(power, 10) / 10
    block_s = {}
    for size in sizes:
        block(size, 1)
        block_s[size] = timed(block, size, 3) / 3
    return Pace(power_s, block_s, kept)


def run_whole(
    scene: Scene, counted: Sequence[Counted], exact: Sequence[Exact], parts: Network
) -> Row:
    """Sequential power for real, in float32 and from another start, with as many iterations as were
    counted: what they take, and where they end.
    """
    started = time.process_time()
    jacobian, kept = held(scene, lambda: WholeNetwork(scene))
    angles, errors = [], []
    for index, (known, truth) in enumerate(zip(counted, exact, strict=True)):
        found = sequential_power(
            jacobian,
            scene.masks_RN[index],
            known.found.iterations,
            tolerance=-1,
            generator=torch.Generator().manual_seed(index),
        )
        angles.append(true_angle(found.V_KD, truth))
        errors.append(value_error(found.S_K, truth))
    cpu_s = time.process_time() - started
    return Row(
        "sequential power, run whole",
        parts.power(jacobian.jvp_count),
        jacobian.jvp_count,
        jacobian.vjp_count,
        cpu_s,
        False,
        kept,
        max(angles),
        None,
        max(errors),
    )


def published(
    exact: Sequence[Exact], parts: Network, speed: Pace, count: int, angle: float
) -> tuple[list[Row], list[Counted]]:
    """Rows of the three published methods: counts on the exact singular values, seconds scaled.

    Beside them the runs of sequential power, region by region.
    """
    power = [
        usual([cheapest_power(e.S_M, count, angle, limit=LIMIT, seed=s) for s in STARTS])
        for e in exact
    ]
    iterations = sum(sum(c.found.iterations) for c in power)
    rows = [
        _row("sequential power, best tolerance", power, exact, parts.power(iterations), iterations,
             1, speed.power_s, speed.held)
    ]  # fmt: skip
    for extra in (0, OVERSAMPLING):
        block = [
            usual(
                [
                    cheapest_block(e.S_M, count, angle, oversampling=extra, limit=LIMIT, seed=s)
                    for s in STARTS
                ]
            )
            for e in exact
        ]
        iterations, size = sum(sum(c.found.iterations) for c in block), count + extra
        decoders = parts.block(iterations, size)
        name = f"block subspace, p={extra}, true stop"
        rows.append(
            _row(name, block, exact, decoders, iterations, size, speed.block_s[size], speed.held)
        )
    return rows, power


def _row(
    method: str,
    counted: Sequence[Counted],
    exact: Sequence[Exact],
    decoders: float,
    iterations: int,
    size: int,
    iteration_s: float,
    kept: int,
) -> Row:
    return Row(
        method,
        decoders,
        iterations * size,
        iterations * size,
        iterations * iteration_s,
        True,
        kept,
        max(c.angle for c in counted),
        None,
        max(value_error(c.found.S_K, e) for c, e in zip(counted, exact, strict=True)),
        all(c.reached for c in counted),
    )


def loosest(
    scene: Scene, parts: Network, regions: int, count: int, angle: float, exact: Sequence[Exact]
) -> Row:
    """Ours at its loosest tolerance whose true angle is met: the like of the published rows."""
    for factor in LOOSER:
        row, spectra = ours(scene, parts, regions, count, angle * factor)
        row = replace(judged(row, spectra, exact), method=f"ours, truth known ({factor:g}x)")
        if row.angle <= angle:
            break
    return row
