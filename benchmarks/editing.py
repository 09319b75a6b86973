"""What edits cost and what they do: `python -m benchmarks.editing`.

Cost: network evaluations, CPU time and memory of eight edits of a face by the published flow, by
one that shares the way to the edit timestep, and by ours. Effect: whether strength is a dial and
means the same on every grid, whether + and - are opposites, whether edits compose, and what the
region guard does to locality; on held-out faces with their own localised directions.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from statistics import mean, median
from typing import Annotated

import torch
import typer

from benchmarks.editing_costs import EDITS, NUM_STEPS, VARIANTS, Cost, Variant, costs
from benchmarks.editing_effects import BASE, STEPS, WINDOW, measure
from benchmarks.editing_statistics import Composition, Effect, kept, mean_correlation
from benchmarks.embedded import HELD_OUT_SEED
from benchmarks.locality_methods import REGIONS
from benchmarks.machine import describe


def print_costs(variant: Variant, found: Sequence[Cost]) -> None:
    """One row a flow."""
    print(f"\n{EDITS} edits of one face, {NUM_STEPS} steps, asymmetric, {variant.name}")
    print("flow        evaluations  of published   CPU s   peak MiB   unedited PSNR")
    for cost in found:
        share = cost.evaluations / found[0].evaluations
        print(
            f"{cost.flow:10s}  {cost.evaluations:11d}  {share:12.2f}  {cost.cpu_s:6.1f}"
            f"  {cost.peak_mib:9.1f}  {cost.psnr:13.1f} dB"
        )
    published, shared, ours = found
    print("max |difference| of the edited images before they are quantised")
    print(f"  shared / published                 {_apart(shared.x_ELYX, published.x_ELYX):.1e}")
    print(f"  ours / shared, from the same x_t   {_apart(ours.same_start_ELYX, shared.x_ELYX):.1e}")
    print(
        f"  ours / shared, each from its own   {_apart(ours.x_ELYX, shared.x_ELYX):.1e}"
        " (theirs went to T and back, at a loss)"
    )


def print_effects(effects: Sequence[Effect], compositions: Sequence[Composition]) -> None:
    """One row a region."""
    faces = len({effect.face for effect in effects})
    print(
        f"\n{faces} held-out faces, their own localised directions, {BASE} steps, window {WINDOW},"
        " asymmetric"
    )
    print("region    correlation: of the mean  median [min]   + opposes -   |factor change|")
    for region in REGIONS:
        own = [e for e in effects if e.region == region]
        correlations = [e.correlation for e in own]
        opposed = sum(e.opposite for e in own)
        moved = [abs(e.factor_change[BASE]) for e in own]
        print(
            f"{region:8s}  {mean_correlation(own):24.3f}  {median(correlations):.3f}"
            f" [{min(correlations):.3f}]  {opposed:6d}/{len(own):<4d}  {median(moved):15.2f}"
        )
    print_steps(effects)
    print("\ntwo directions together / each alone, in the region of the first; over faces")
    print("region (with)     factor change   in-region change median [least, most]   difference")
    for region, other in sorted({(c.region, c.other) for c in compositions}):
        both = [c for c in compositions if (c.region, c.other) == (region, other)]
        ratios = [c.change_ratio for c in both]
        print(
            f"{region:6s} ({other:5s})   {kept(both):12.2f}  {median(ratios):18.2f}"
            f" [{min(ratios):.2f}, {max(ratios):.2f}]  {median(c.difference for c in both):18.2f}"
        )
    print(f"all              {kept(compositions):13.2f}")
    print("\nregion guard, 0.03 dilated and 0.03 feathered, same strength; medians over faces")
    print("region      ROIR free   guarded   in-region change guarded / free")
    for region in REGIONS:
        own = [e for e in effects if e.region == region]
        print(
            f"{region:8s}  {median(e.roir for e in own):11.3f}"
            f"  {median(e.guarded_roir for e in own):8.3f}"
            f"  {median(e.guarded_in_change for e in own):12.2f}"
        )


def print_steps(effects: Sequence[Effect]) -> None:
    """Means over faces and regions on every grid, relative to the one with half the steps where it
    was measured.
    """
    grids = sorted(effects[0].in_change)
    print("\nsteps   in-region change   of half the steps   |factor change|   of half the steps")
    found: dict[int, tuple[float, float]] = {}
    for n in grids:
        now = (
            mean(e.in_change[n] for e in effects),
            mean(abs(e.factor_change[n]) for e in effects),
        )
        found[n] = now
        half = found.get(n // 2) if n % 2 == 0 else None
        shares = ["", ""]
        if half is not None:
            shares = [f"{a / b:.2f}" for a, b in zip(now, half, strict=True)]
        print(f"{n:5d}  {now[0]:17.3f}  {shares[0]:>18s}  {now[1]:16.3f}  {shares[1]:>18s}")


def main(
    faces: Annotated[
        int, typer.Option(help="Held-out faces of the effect table; 0: costs alone.")
    ] = 8,
    processes: Annotated[int, typer.Option(help="Processes of one thread.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the faces.")] = HELD_OUT_SEED,
) -> None:
    """Measure and print the tables."""
    torch.set_num_threads(1)
    print(describe())
    for variant in VARIANTS:
        print_costs(variant, costs(variant))
    if not faces:
        return
    one = partial(measure, count=faces, seed=seed, steps=STEPS)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(one, range(faces)))
    print_effects(
        [effect for effects, _ in found for effect in effects],
        [composition for _, compositions in found for composition in compositions],
    )


def _apart(a_ELYX: torch.Tensor, b_ELYX: torch.Tensor) -> float:
    return float((a_ELYX - b_ELYX).abs().max())


if __name__ == "__main__":
    typer.run(main)
