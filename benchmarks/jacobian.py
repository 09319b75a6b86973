"""Published ways to a region's singular directions against ours: `python -m benchmarks.jacobian`.

Six disjoint regions of one face; every method ends at the same angle to the exact subspace. The
published ones run through the whole U-Net and stop where it is best for them, the truth being
known; ours stops by its own estimate (and, for comparison, by its loosest tolerance that would
have done). `--model celebahq` asks for counts, time and memory at the real size instead.

The first run trains the toy and takes the exact SVDs, about ten minutes on one core; both stay in
the cache folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.costs import MODEL, Network, measured, network
from benchmarks.machine import describe
from benchmarks.methods import (
    CHUNK,
    LIMIT,
    OVERSAMPLING,
    Row,
    engine,
    judged,
    loosest,
    ours,
    pace,
    published,
    run_whole,
)
from benchmarks.oracle import oracle, spectrum_line
from benchmarks.real_size import at_real_size
from benchmarks.scenes import MODELS, REGIONS, Scene, load_scene
from benchmarks.toy import DEFAULT_CACHE
from benchmarks.whole_network import WholeNetwork
from lib.discovery.jacobian import LinearMap
from lib.process_memory import peak_bytes

HEADER = (
    "k   R  method                          D-equiv  jvp/vjp      CPU s    held MiB  true angle"
    "  estimated  s error   D ratio  CPU ratio"
)


def table(
    scene: Scene,
    cache: Path,
    counts: Sequence[int],
    regions: Sequence[int],
    angle: float,
    whole: bool,
) -> None:
    """Print every method for every count and number of regions."""
    exact, parts = oracle(scene, cache), network(scene)
    for count in counts:
        print(f"k={count}: {spectrum_line(REGIONS, exact, count)}")
    speed = pace(scene, sorted({k + p for k in counts for p in (0, OVERSAMPLING)}))
    print(
        f"D = {parts.decoder_flops / 1e9:.3f} GFLOP, e = {parts.encoder:.2f};"
        f" whole U-Net: {speed.power_s:.3f} CPU s an iteration of sequential power"
    )
    print(f"counted by torch, in D: {_counted(scene, parts)}")
    print(HEADER)
    for count in counts:
        for number in regions:
            rows, power = published(exact[:number], parts, speed, count, angle)
            if whole:
                rows.insert(1, run_whole(scene, power, exact[:number], parts))
            own, spectra = ours(scene, parts, number, count, angle)
            rows.append(judged(own, spectra, exact))
            rows.append(loosest(scene, parts, number, count, angle, exact))
            for row in rows:
                _print(row, rows[0], count, number)


def _counted(scene: Scene, parts: Network) -> str:
    """One product of 1 and of 5 vectors, forward and reverse, to check the model by."""
    maps: dict[str, LinearMap] = {
        "whole U-Net": WholeNetwork(scene),
        "ours": engine(scene, CHUNK),
    }
    cells = []
    for name, jacobian in maps.items():
        for size in (1, 5):
            forward, backward = measured(jacobian, scene.masks_RN.shape[1], size, parts)
            cells.append(f"{name} b={size} {forward:.2f} + {backward:.2f}")
    return ", ".join(cells)


def _print(row: Row, reference: Row, count: int, regions: int) -> None:
    estimate = "        -" if row.estimate is None else f"{row.estimate:9.1e}"
    least = " " if row.reached else ">"
    print(
        f"{count:2d} {regions:2d}  {row.method:32s} {least}{row.decoders:6.0f}"
        f" {row.jvps:5d}/{row.vjps:<5d} {'~' if row.scaled else ' '}{row.cpu_s:8.2f}"
        f"  {row.held / 2**20:8.1f}  {row.angle:10.1e}  {estimate}  {row.value_error:7.1e}"
        f"  {reference.decoders / row.decoders:8.1f}  {reference.cpu_s / row.cpu_s:9.1f}",
        flush=True,
    )


def main(
    model: Annotated[list[str] | None, typer.Option(help="embedded, toy, celebahq")] = None,
    k: Annotated[list[int] | None, typer.Option(help="Directions a region.")] = None,
    regions: Annotated[list[int] | None, typer.Option(help="The first so many regions.")] = None,
    angle: Annotated[float, typer.Option(help="Sine that every method must meet.")] = 1e-3,
    whole: Annotated[
        bool, typer.Option("--whole", help="Also run sequential power for real (minutes).")
    ] = False,
    max_rounds: Annotated[int, typer.Option(help="Of ours, with celebahq.")] = 4,
    chunk: Annotated[int, typer.Option(help="Vectors a call of ours, with celebahq.")] = 3,
    cache: Annotated[Path, typer.Option(help="Holds the toy and the exact SVDs.")] = DEFAULT_CACHE,
) -> None:
    """Print the comparison."""
    torch.set_num_threads(1)
    print(describe())
    print(MODEL)
    for name in model or ["embedded", "toy"]:
        if name not in MODELS:
            raise typer.BadParameter(f"expected one of {', '.join(MODELS)}, got {name!r}")
        scene = load_scene(name, cache)
        entries = ", ".join(f"{int(n)}" for n in scene.masks_RN.sum(1))
        print(
            f"\n{name}: t={scene.t}, h {'x'.join(map(str, scene.denoiser.h_shape))};"
            f" entries of {', '.join(REGIONS)}: {entries}"
        )
        if name == "celebahq":
            at_real_size(scene, (k or [5])[0], (regions or [3])[0], chunk, max_rounds)
            continue
        print(
            f"~ scaled from measured iterations, > angle not met in {LIMIT} iterations a vector;"
            " ratios to the first row of each task"
        )
        table(scene, cache, k or [5, 10], regions or [1, 3, 6], angle, whole)
    peak = peak_bytes() / 2**30
    print(f"\npeak memory of the process {peak:.2f} GiB")


if __name__ == "__main__":
    typer.run(main)
