"""How local edits are by method, at equal in-region change: `python -m benchmarks.locality`.

Edits by the leading direction of every region of the face itself and by those of three other faces;
the factor regressor reads them, so that locality bought by changing nothing of meaning shows.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from textwrap import wrap
from typing import Annotated

import torch
import typer

from benchmarks import locality_methods as methods
from benchmarks.embedded import HELD_OUT_SEED, Bench, held_out, load_bench, segmented
from benchmarks.locality_edits import (
    TARGETS,
    Job,
    Row,
    append,
    edited,
    kept,
    transferred_faceless,
)
from benchmarks.locality_statistics import PLAIN, Line, line
from benchmarks.machine import describe
from lib.demo.regressor import Regressor, load
from lib.records import Segmented
from tasks.edit import Editor

NUM_STEPS = 16
WINDOW = (560, 300)
TIMESTEP = 400
BATCH_SIZE = 16
"""More images at once are slower: they fall out of the cache."""
SOURCES = 3
ORDER = ("random", "pca", "jacobian", "jive", "null_space", "localised")


@dataclass(frozen=True, slots=True)
class Tools:
    """What every face is edited with."""

    bench: Bench
    editor: Editor
    regressor: Regressor
    node: int

    def face(self, index: int, count: int, seed: int) -> Segmented:
        """One of `count` faces of a seed, inverted, with its true zones."""
        samples, zones = _faces(count, seed)
        inverted = self.bench.inverted(
            samples[index : index + 1],
            last=self.bench.grid.last_node(WINDOW[0]),
            keep=[self.node],
            refinements=2,
        )
        return segmented(inverted, zones[index : index + 1], methods.BLOCKS)[0]


_faces = cache(held_out)


@cache
def tools() -> Tools:
    """The embedded model on the benchmark's grid; loaded once a process."""
    torch.set_num_threads(1)
    bench = load_bench(NUM_STEPS)
    node = bench.grid.nearest_node(TIMESTEP)
    return Tools(bench, bench.editor(WINDOW, batch_size=BATCH_SIZE), load(), node)


def search(index: int, count: int, seed: int) -> dict[str, methods.Found]:
    """The directions of one face, by every method that needs no other face."""
    face = tools().face(index, count, seed)
    return methods.discovered(methods.place(tools().bench, face, tools().node), ORDER)


@dataclass(frozen=True, slots=True)
class Order:
    """One face to measure."""

    index: int
    count: int
    seed: int
    component: methods.Found
    own: dict[str, methods.Found]
    """Its own directions; empty: to be found."""
    others: dict[str, methods.Found]
    """Another face's, empty for the faces that give them."""


def measure(order: Order) -> list[Row]:
    """All rows of one face."""
    t = tools()
    face = t.face(order.index, order.count, order.seed)
    own = order.own or search(order.index, order.count, order.seed)
    jobs = [Job("own", order.index, own | {"pca": order.component})]
    if order.others:
        of_face = {k: v for k, v in order.others.items() if k not in methods.FACELESS}
        jobs.append(Job("transfer", order.index % SOURCES, of_face))
    rows = edited(t.bench, t.editor, t.regressor, face, jobs, t.node)
    return rows + (transferred_faceless(rows) if order.others else [])


def run(count: int, processes: int, seed: int, save: Path) -> list[Row]:
    """Rows of `count` faces, appended to `save` face by face; faces that are there are not done
    again.
    """
    what = conditions(count, seed)
    done = {row.face for row in kept(save, what)}
    left = [i for i in range(count) if i not in done]
    if not left:
        return kept(save, what)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        asked = {pool.submit(search, i, count, seed): i for i in range(min(SOURCES, count))}
        v_D = methods.principal(tools().bench, tools().node).numpy()
        component = methods.Found(v_D[None].repeat(len(methods.REGIONS), 0))
        measured = []
        for known in as_completed(asked):
            source, found = asked[known], known.result()
            for i in left:
                if i % SOURCES == source:
                    own, others = (found, {}) if i == source else ({}, found)
                    order = Order(i, count, seed, component, own, others)
                    measured.append(pool.submit(measure, order))
        for future in as_completed(measured):
            rows = future.result()
            append(save, what, rows)
            done.add(rows[0].face)
            typer.echo(f"face {rows[0].face} done, {len(done)} of {count}", err=True)
    return kept(save, what)


def conditions(count: int, seed: int) -> str:
    """Everything that decides the rows beside the code."""
    return (
        f"{count} faces of seed {seed}, {NUM_STEPS} steps, 2 refinements, directions of"
        f" t={TIMESTEP}, window {WINDOW}, asymmetric; localised: lambda {methods.TRADE_OFF}; JIVE:"
        f" factors of rank {methods.FACTOR_RANK}, {methods.JOINT_RANK} joint and"
        f" {methods.INDIVIDUAL_RANK} individual; null space of rank {methods.NULL_RANK}; transfer:"
        f" each face takes the directions of one of {SOURCES} others"
    )


def table(rows: Sequence[Row]) -> None:
    """Print every condition, method by method, and what is asked of the localised directions."""
    for target in TARGETS:
        for condition in ("own", "transfer"):
            part = [r for r in rows if (r.condition, r.target) == (condition, target)]
            if part:
                _print_part(f"{condition}, in-region change {target:.2f}", part)
    print("products of the Jacobian a face, 3 regions: jvp / vjp, median [max]")
    for name in ORDER[2:]:
        counts = {
            r.face: (r.jvp_count, r.vjp_count)
            for r in rows
            if r.method == name and r.condition == "own"
        }
        jvps, vjps = [c[0] for c in counts.values()], [c[1] for c in counts.values()]
        print(f"{name:10s}  {median(jvps):.0f} [{max(jvps)}] / {median(vjps):.0f} [{max(vjps)}]")


def _print_part(title: str, rows: Sequence[Row]) -> None:
    lines = [line(rows, name) for name in ORDER if any(r.method == name for r in rows)]
    plain = next(x for x in lines if x.method == PLAIN)
    print(f"\n{title}, {plain.ratio.count} faces; columns of three: eyes brows mouth")
    print(
        "method      ROIR               mean   ratio to plain [95 %] max    better"
        "  own factors        others             strength           reached"
    )
    for x in lines:
        print(_text(x))
    best = lines[-1]
    shares = [b / p for b, p in zip(best.own_change, plain.own_change, strict=True)]
    print(f"own factors, {best.method} / plain: " + _three(shares, 2))


def _text(x: Line) -> str:
    ratio = f"{x.ratio.median:5.2f} [{x.ratio.low:.2f}-{x.ratio.high:.2f}] {x.ratio.worst:5.2f}"
    return (
        f"{x.method:10s}  {_three(x.roir, 3)}  {sum(x.roir) / 3:.3f}  {ratio:27s}"
        f"  {x.ratio.better:2d}/{x.ratio.count:<2d}   {_three(x.own_change, 3)}"
        f"  {_three(x.other_change, 3)}  {_three(x.strength, 3)}  {x.reached:.2f}"
    )


def _three(values: Sequence[float], digits: int) -> str:
    return " ".join(f"{value:.{digits}f}" for value in values)


def main(
    faces: Annotated[
        int, typer.Option(help="Faces to edit; the first three give directions.")
    ] = 32,
    processes: Annotated[int, typer.Option(help="Processes of one thread.")] = 2,
    seed: Annotated[int, typer.Option(help="Of the faces.")] = HELD_OUT_SEED,
    save: Annotated[Path, typer.Option(help="CSV of the raw rows; a stopped run goes on.")] = Path(
        "locality.csv"
    ),
) -> None:
    """Measure, keep the raw rows and print the table."""
    rows = run(faces, processes, seed, save)
    torch.set_num_threads(1)
    print(describe())
    print("\n".join(wrap(conditions(faces, seed), 110)))
    table(rows)


if __name__ == "__main__":
    typer.run(main)
