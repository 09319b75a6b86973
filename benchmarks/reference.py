"""Whether an edit towards a reference face moves the region's factors to the reference's, and no
others: `python -m benchmarks.reference --pairs 64 --cache DIR`.

A pair is one generated face twice, with the factors of one region drawn anew. The factor regressor
reads edit, reconstruction, source and reference.

Shape suffixes: F factors; H, W of the image.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.embedded import HELD_OUT_SEED, SIZE, Bench, held_out, load_bench
from benchmarks.machine import describe
from benchmarks.reference_table import OWN, Pair, table
from benchmarks.stage_cache import kept
from lib.demo.faces import FACTORS, render, sample_factors
from lib.demo.regressor import Regressor, load, read
from lib.editing.edit_shifts import EditShifts
from lib.pixels import as_floats, change
from lib.records import Discovered, Segmented
from lib.reference.images import Reference
from lib.reference.matching import Approach
from lib.regions import make_region
from lib.sampling.ddim_sampler import DdimSampler
from lib.shift import Shift
from tasks.reference import ReferenceDiscoverer

NUM_STEPS, REFINEMENTS = 16, 2
WINDOW = (560, 300)
TIMESTEP = 368
APPROACHES = {
    "reference": Approach(basis=16, rounds=3, outside=1.0),
    "J^T d alone": Approach(basis=1, rounds=1, outside=1.0),
}
"""The defaults; and the gradient of the region towards the reference at its best strength."""


@dataclass(frozen=True, slots=True)
class Faces:
    """Source and reference of one pair."""

    segmented: Segmented
    reference: Reference
    region: str


@cache
def tools() -> tuple[Bench, Regressor]:
    """Model and regressor, loaded once."""
    return load_bench(NUM_STEPS), load()


_held_out = cache(held_out)


@cache
def _factors(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Of the sources, and of the references, (N, F)."""
    source_NF, drawn_NF = sample_factors(count, seed), sample_factors(count, seed + 1)
    reference_NF = source_NF.clone()
    for n, region in enumerate(_regions(count)):
        columns = [FACTORS.index(name) for name in OWN[region]]
        reference_NF[n, columns] = drawn_NF[n, columns]
    return source_NF, reference_NF


def _regions(count: int) -> list[str]:
    return [list(OWN)[n % len(OWN)] for n in range(count)]


def faces(index: int, count: int, seed: int) -> Faces:
    """Pair number `index`, the source inverted, its region the true zone."""
    bench, _ = tools()
    region = _regions(count)[index]
    _, reference_NF = _factors(count, seed)
    samples, zones = _held_out(count, seed)
    (inverted,) = bench.inverted(
        samples[index : index + 1],
        last=bench.grid.last_node(WINDOW[0]),
        keep=[bench.grid.nearest_node(TIMESTEP)],
        refinements=REFINEMENTS,
    )
    image_CHW = render(reference_NF[index : index + 1], SIZE).image_BCHW[0]
    chosen = make_region(region, zones[index][region])
    return Faces(Segmented(inverted, (chosen,)), Reference(image_CHW, ""), region)


def discovered(bench: Bench, found: Faces, approach: Approach) -> Discovered:
    """The discover stage of one pair."""
    denoiser = bench.denoiser
    shifts = EditShifts(
        bench.grid,
        WINDOW,
        "asymmetric",
        "window",
        bench.h_norms,
        denoiser.h_shape,
        denoiser.latent_shape,
    )
    stage = ReferenceDiscoverer(
        denoiser,
        node=bench.grid.nearest_node(TIMESTEP),
        shifts=shifts,
        sampler=DdimSampler(),
        reference_of=lambda _sample: found.reference,
        approach=approach,
        parameters={},
        model=bench.weights,
        h_layer="after",
        vector_dtype="float16",
    )
    (one,) = stage([found.segmented], _refuse)
    return one


def measure(index: int, count: int, seed: int, approach: Approach) -> Pair:
    """Find, edit at strength 1, and read."""
    bench, regressor = tools()
    found = faces(index, count, seed)
    started = time.process_time()
    one = discovered(bench, found, approach)
    cpu_s = time.process_time() - started
    (direction,) = one.directions
    latent = found.segmented.inverted.latent
    images_BCHW = bench.editor(WINDOW).decode(latent, [Shift(direction, 1.0)])
    if images_BCHW is None:
        raise ArithmeticError(f"pair {index}: the edit is not finite")
    plain_CHW, edited_CHW = as_floats(images_BCHW)
    source_CHW = found.segmented.inverted.sample.image_CHW
    seen_BF = read(
        regressor, torch.stack([plain_CHW, edited_CHW, source_CHW, found.reference.image_CHW])
    )
    own = [FACTORS.index(name) for name in OWN[found.region]]
    others = [f for f in range(len(FACTORS)) if f not in own]
    change_F, difference_F = seen_BF[1] - seen_BF[0], seen_BF[3] - seen_BF[2]
    mask_HW = found.segmented.regions[0].mask_HW
    inside, outside = change(edited_CHW[None], plain_CHW[None], mask_HW)
    squared = float(difference_F[own] @ difference_F[own])
    return Pair(
        region=found.region,
        towards=float(change_F[own] @ difference_F[own]) / squared,
        others=float(change_F[others].abs().mean()),
        difference=float(difference_F[own].abs().mean()),
        roir=float(outside / inside),
        strength=direction.unit_strength,
        explained=float(direction.parameters["explained"]),
        evaluations=one.evaluations,
        cpu_s=cpu_s,
    )


def conditions(seed: int, approach: Approach) -> str:
    """Everything that decides a pair beside its number and the code; the first pairs of a seed are
    the same whatever their number.
    """
    return (
        f"pairs of seed {seed}, {NUM_STEPS} steps, {REFINEMENTS} refinements, t={TIMESTEP},"
        f" window {WINDOW}, asymmetric, {approach}"
    )


def _refuse(failure: object) -> None:
    raise ArithmeticError(f"a pair was rejected: {failure}")


def main(
    pairs: Annotated[int, typer.Option(help="Pairs of faces.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the faces.")] = HELD_OUT_SEED,
    cache: Annotated[Path | None, typer.Option(help="Folder for finished pairs.")] = None,
    outside: Annotated[float, typer.Option(help="Weight of changes outside.")] = 1.0,
    gradient: Annotated[bool, typer.Option(help="Measure J^T d alone too.")] = True,
) -> None:
    """Measure every pair by every approach and print the tables."""
    torch.set_num_threads(1)
    rows: dict[str, list[Pair]] = {}
    for name, default in list(APPROACHES.items())[: 2 if gradient else 1]:
        approach = replace(default, outside=outside)
        settings = conditions(seed, approach)
        for index in range(pairs):
            pair = kept(
                cache,
                f"pair-{index:03d}",
                settings,
                lambda index=index, approach=approach: measure(index, pairs, seed, approach),
            )
            rows.setdefault(name, []).append(pair)
            typer.echo(f"{name}: {index + 1} of {pairs}", err=True)
    print(describe())
    print("\n".join(wrap(f"{pairs} {conditions(seed, APPROACHES['reference'])}", 110)))
    print("towards: the share of the way to the reference that the region's own factors go, mean;")
    print("others: mean |change| of all others / mean |difference| of the region's own")
    for name, found in rows.items():
        table(name, found)


if __name__ == "__main__":
    typer.run(main)
