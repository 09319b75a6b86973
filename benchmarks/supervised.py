"""Directions of all 16 factors from labels: do they move what they are labelled with?
`python -m benchmarks.supervised`.

Directions are fitted to the true factors of generated faces, get window, sign and strength on
calibration faces, and are judged by the factor regressor on held-out faces.
Shape suffixes: P directions, N faces, 2 signs (+ first), F factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.embedded import HELD_OUT_SEED, Bench, load_bench
from benchmarks.machine import describe
from benchmarks.stage_cache import kept
from benchmarks.supervised_directions import (
    FITS,
    L2,
    TRAINING_SEED,
    Training,
    confounded,
    label_directions,
    training,
)
from benchmarks.supervised_effects import (
    REFINEMENTS,
    Effects,
    Named,
    SideEffect,
    Window,
    effects,
    factor_reader,
    places,
    side_effect,
    towards_sign,
)
from lib.demo.faces import FACTORS
from pipelines.direction_effects import Factors
from pipelines.window_search import Placed, placed

NUM_STEPS = 12
WINDOWS: tuple[Window, ...] = ((545, 272), (363, 91), (272, 0))
CHANGE = 0.03
"""Mean |change| of the whole image at which directions are compared."""
CALIBRATION_SEED = 556
CALIBRATION, PILOTS = 6, 2
ENOUGH = 0.9
"""Share of faces that a direction must move the right way, both with + and with -."""
SIDE_FACES, SIDE_PAIRS = 8, 2
CONFOUNDED = (("hair_len", "bg_grad"),)
"""(factor, other): also a direction of the factor from faces in which the other has its sign."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A direction on the held-out faces."""

    factor: str
    fit: str
    placed: Placed
    right: tuple[float, float]
    """Share of faces whose factor rises with +, and falls with -."""
    change: tuple[float, float]
    """Mean change of the factor, with + and with -."""
    others: float
    """Mean |change| of the 15 other factors."""
    whole: float
    """Mean |change| of the image."""

    @property
    def moves(self) -> bool:
        """Whether enough faces move the right way, whichever the sign."""
        return min(self.right) >= ENOUGH


def calibrated(bench: Bench, known: Training, fit: str, read_factors: Factors) -> list[Placed]:
    """The directions of all factors with window, sign and strength."""
    found = label_directions(bench, known, fit)
    at = list(places(bench, WINDOWS, CALIBRATION, CALIBRATION_SEED).values())
    columns = range(len(FACTORS))
    return placed(found, columns, at, read_factors, change=CHANGE, pilots=PILOTS)


def outcomes(fit: str, chosen: Sequence[Placed], found: Effects) -> list[Outcome]:
    """One for every factor."""
    results = []
    for factor, name in enumerate(FACTORS):
        change_N2F = found.change_PN2F[factor]
        own_N2 = change_N2F[:, :, factor]
        size_F = change_N2F.abs().mean((0, 1))
        results.append(
            Outcome(
                factor=name,
                fit=fit,
                placed=chosen[factor],
                right=(_share(own_N2[:, 0] > 0), _share(own_N2[:, 1] < 0)),
                change=(float(own_N2[:, 0].mean()), float(own_N2[:, 1].mean())),
                others=float(size_F.sum() - size_F[factor]) / (len(FACTORS) - 1),
                whole=float(found.whole_PN2[factor].mean()),
            )
        )
    return results


def strongest_side_effects(chosen: Sequence[Placed], count: int) -> list[tuple[int, int]]:
    """(factor of the direction, other factor) with the largest side effect an own change on the
    calibration faces, one a direction; of directions that move their own factor in every face,
    both ways.
    """
    pairs = []
    for own, one in enumerate(chosen):
        if one.choice.agreement < 1:
            continue
        side_F = (one.change_F / one.change_F[own]).abs()
        side_F[own] = 0
        pairs.append((float(side_F.max()), own, int(side_F.argmax())))
    return [(own, other) for _, own, other in sorted(pairs, reverse=True)[:count]]


def main(
    faces: Annotated[int, typer.Option(help="Held-out faces.")] = 32,
    train: Annotated[int, typer.Option(help="Labelled faces.")] = 192,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps finished stages.")] = None,
) -> None:
    """Print what the directions of all factors do."""
    torch.set_num_threads(1)
    print(describe())
    print(
        f"{train} labelled faces (seed {TRAINING_SEED}, outer thirds compared; plain inversion),"
        f" {CALIBRATION} calibration faces (seed {CALIBRATION_SEED}), {faces} held-out faces (seed"
        f" {HELD_OUT_SEED});\n{NUM_STEPS} steps, {REFINEMENTS} refinements, asymmetric; windows"
        f" tried {', '.join(map(str, WINDOWS))}; logistic l2 {L2}; mean |change| of the whole image"
        f" {CHANGE}",
        flush=True,
    )
    bench, read_factors = load_bench(NUM_STEPS), factor_reader()
    known = training(bench, train, WINDOWS[0][0], cache)
    settings = (bench.weights, NUM_STEPS, train, WINDOWS, CHANGE, CALIBRATION, PILOTS, L2)
    at = places(bench, WINDOWS, faces, HELD_OUT_SEED)
    few = {window: replace(p, latents=p.latents[:SIDE_FACES]) for window, p in at.items()}
    results, rows = [], []
    for fit in FITS:
        make = partial(calibrated, bench, known, fit, read_factors)
        chosen = kept(cache, "calibrated", (*settings, fit), make)
        measure = partial(effects, chosen, at, read_factors)
        found = kept(cache, "held-out", (*settings, fit, faces), measure)
        of_fit = outcomes(fit, chosen, found)
        _print_outcomes(of_fit)
        results += of_fit
        named = [Named(name, f, chosen[f]) for f, name in enumerate(FACTORS)]
        before_PF = towards_sign(found.change_PN2F[:, :SIDE_FACES])
        for own, other in strongest_side_effects(chosen, SIDE_PAIRS):
            pair = named[own], named[other]
            rows.append((fit, side_effect(*pair, few, read_factors, before_PF[own])))
        for name, other_name in CONFOUNDED:
            own, other = FACTORS.index(name), FACTORS.index(other_name)
            clean = chosen[own]
            mixed = confounded(bench, known, fit, own, other)
            mixed = replace(mixed, window=clean.choice.window)
            first = Named(f"{name} ~", own, replace(clean, direction=mixed))
            rows.append((fit, side_effect(first, named[other], few, read_factors)))
    either = {row.factor for row in results if row.moves}
    print(f"* by one fit or the other: {len(either)} of {len(FACTORS)}")
    _print_side_effects(rows)


def _print_outcomes(results: Sequence[Outcome]) -> None:
    print(
        "\nfit       factor      window   sign  strength  right way +/-  change + / -   others"
        "  image"
    )
    for row in results:
        choice = row.placed.choice
        print(
            f"{row.fit:8s}  {row.factor:10s}  {choice.window[0]:3d}-{choice.window[1]:<3d}"
            f"   {'+' if choice.sign > 0 else '-'}   {row.placed.strength:8.2f}"
            f"  {row.right[0]:6.0%} {row.right[1]:6.0%}  {row.change[0]:+.2f} /"
            f" {row.change[1]:+.2f}  {row.others:7.3f}  {row.whole:.3f}"
            f"{'  *' if row.moves else ''}"
        )
    moved = sum(row.moves for row in results)
    print(
        f"* {results[0].fit}: {moved} of {len(results)} factors move the right way on at least"
        f" {ENOUGH:.0%} of the faces, with + and with -",
        flush=True,
    )


def _print_side_effects(rows: Sequence[tuple[str, SideEffect]]) -> None:
    print(
        f"\nconditional projection, on {SIDE_FACES} held-out faces, strength searched for equal own"
        " change: the strongest side effects of the calibration, and\n~ from faces in which both"
        " factors have the same sign\n"
        "fit       direction   out of it   cosine  own change      side effect         side / own"
    )
    for fit, row in rows:
        print(
            f"{fit:8s}  {row.direction:10s}  {row.removed:10s}  {row.cosine:+5.2f}"
            f"  {row.own:+.2f} -> {row.own_after:+.2f}  {row.side:+.3f} -> {row.side_after:+.3f}"
            f"  x {row.left:.2f}"
        )


def _share(right_N: Tensor) -> float:
    return float(right_N.float().mean())


if __name__ == "__main__":
    typer.run(main)
