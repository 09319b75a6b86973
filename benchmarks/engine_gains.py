"""What each part of the Jacobian engine gains: `python -m benchmarks.engine_gains`.

Every row changes one thing. Decoder-equivalents (D) follow the cost model of `costs`: b vectors in
one call cost b + 2 by forward-mode AD, b linearised and b in reverse. Mean over the faces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
import typer
from torch import Tensor

from benchmarks.embedded import Bench, held_out, load_bench
from benchmarks.machine import describe
from lib.discovery.jacobian import Jacobian, Products, h_jacobian
from lib.discovery.subspace import top_directions

REGIONS = ("eyes", "brows", "mouth")
TUNING_SEED = 555
NUM_STEPS, TIMESTEP = 50, 368


@dataclass(frozen=True, slots=True)
class Spent:
    """One search."""

    jvps: int
    vjps: int
    calls: int
    cpu_s: float
    converged: bool
    V_RKD: list[Tensor]


@dataclass(frozen=True, slots=True)
class Face:
    """One face's points, by node, and its masks."""

    x_BLYX: dict[int, Tensor]
    masks_RN: Tensor


def faces_of(bench: Bench, count: int, nodes: Sequence[int]) -> list[Face]:
    """Inverted faces of the tuning seed with x_t at `nodes`."""
    samples, zones = held_out(count, TUNING_SEED)
    inverted = bench.inverted(samples, last=max(nodes), keep=nodes, refinements=0)
    return [
        Face(
            {n: face.states_LYX[bench.grid.timestep(n)][None] for n in nodes},
            torch.stack([zone[r].expand(3, -1, -1).flatten() for r in REGIONS]),
        )
        for face, zone in zip(inverted, zones, strict=True)
    ]


def search(
    bench: Bench,
    face: Face,
    node: int,
    count: int,
    tolerance: float,
    *,
    products: Products = "linearised",
    block: int = 1,
    start: Sequence[Tensor] = (),
) -> Spent:
    """The engine on one face at one timestep."""
    began = time.process_time()
    jacobian = _Counted(_jacobian(bench, face, node, products))
    found = top_directions(
        jacobian,
        face.masks_RN,
        [count] * len(face.masks_RN),
        tolerance=tolerance,
        max_rounds=100,
        generator=torch.Generator().manual_seed(0),
        block=block,
        start=start,
    )
    return Spent(
        jacobian.jvp_count,
        jacobian.vjp_count,
        jacobian.calls,
        time.process_time() - began,
        all(s.converged for s in found.spectra),
        [s.V_KD for s in found.spectra],
    )


class _Counted:
    """A map that counts calls of its forward products as well."""

    def __init__(self, inner: Jacobian) -> None:
        self._inner = inner
        self.domain = inner.domain
        self.jvp_count = 0
        self.vjp_count = 0
        self.calls = 0

    def jvp(self, V_KD: Tensor) -> Tensor:
        self.jvp_count += len(V_KD)
        self.calls += 1
        return self._inner.jvp(V_KD)

    def vjp(self, U_KN: Tensor) -> Tensor:
        self.vjp_count += len(U_KN)
        return self._inner.vjp(U_KN)


def _jacobian(bench: Bench, face: Face, node: int, products: Products) -> Jacobian:
    t, alpha = bench.grid.timestep(node), bench.grid.alphas[node]
    with torch.no_grad():
        point = bench.denoiser.encode(face.x_BLYX[node], t)
    return h_jacobian(bench.denoiser, point, alpha, chunk=32, products=products)


def _row(name: str, runs: Sequence[Spent], forward: bool, base: float) -> float:
    cost = mean(r.jvps + r.vjps + (2 * r.calls if forward else 0) for r in runs)
    print(
        f"{name:44s}  {cost:7.1f}  {mean(r.jvps for r in runs):6.1f}"
        f"  {mean(r.vjps for r in runs):6.1f}  {mean(r.cpu_s for r in runs):7.2f}"
        f"  {(base or cost) / cost:6.2f}  {'yes' if all(r.converged for r in runs) else 'NO'}",
        flush=True,
    )
    return cost


def searches(bench: Bench, faces: Sequence[Face], node: int, count: int, tolerance: float) -> None:
    """Block policy, products and warm starts."""
    print(f"k={count}, R={len(REGIONS)}, estimated angle {tolerance}")
    print(f"{'':44s}  D-equiv     jvp     vjp    CPU s    gain  converged")

    def all_faces(run: Callable[[int, Face], Spent]) -> list[Spent]:
        return [run(i, face) for i, face in enumerate(faces)]

    block = all_faces(
        lambda _, f: search(bench, f, node, count, tolerance, products="forward", block=count)
    )
    base = _row(f"forward-mode AD, {count} start vectors a region", block, True, 0.0)
    single = all_faces(lambda _, f: search(bench, f, node, count, tolerance, products="forward"))
    _row("forward-mode AD, one start vector", single, True, base)
    cold = all_faces(lambda _, f: search(bench, f, node, count, tolerance))
    cost = _row("linearised, one start vector", cold, False, base)
    above = all_faces(lambda _, f: search(bench, f, node + 1, count, tolerance))
    near = all_faces(lambda i, f: search(bench, f, node, count, tolerance, start=above[i].V_RKD))
    print("against the row above:")
    gap = bench.grid.timestep(node + 1) - bench.grid.timestep(node)
    _row(f"started from the directions at t + {gap}", near, False, cost)
    other = all_faces(
        lambda i, f: search(bench, f, node, count, tolerance, start=cold[i - 1].V_RKD)
    )
    _row("started from another image's directions", other, False, cost)


def batching(bench: Bench, face: Face, node: int) -> None:
    """CPU milliseconds a vector by the number of vectors in a call."""
    print("vectors a call: CPU ms a vector, linearised jvp / vjp")
    jacobian = _jacobian(bench, face, node, "linearised")
    for size in (1, 3, 9, 27):
        V_KD = torch.randn(size, jacobian.domain, generator=torch.Generator().manual_seed(1))
        U_KN = jacobian.jvp(V_KD)
        times = []
        for product, rows in ((jacobian.jvp, V_KD), (jacobian.vjp, U_KN)):
            began = time.process_time()
            for _ in range(3):
                product(rows)
            times.append((time.process_time() - began) / 3 / size * 1e3)
        print(f"{size:14d}: {times[0]:6.1f} / {times[1]:6.1f}", flush=True)


def main(faces: int = 3) -> None:
    """Print what block policy, products, warm starts and batching gain."""
    torch.set_num_threads(1)
    print(describe())
    bench = load_bench(NUM_STEPS)
    node = bench.grid.nearest_node(TIMESTEP)
    prepared = faces_of(bench, faces, [node, node + 1])
    print(f"{faces} faces of seed {TUNING_SEED}, t={bench.grid.timestep(node)}")
    for count, tolerance in ((3, 0.1), (5, 1e-3)):
        searches(bench, prepared, node, count, tolerance)
    batching(bench, prepared[0], node)


if __name__ == "__main__":
    typer.run(main)
