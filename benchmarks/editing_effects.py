"""What edits do to held-out faces: whether strength is a dial, means the same on other grids, and
whether edits of different regions leave each other alone; read by the factor regressor.

Shape suffixes: S strengths, F factors; C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from benchmarks import locality_methods as methods
from benchmarks.editing_statistics import DIAL, Composition, Effect
from benchmarks.embedded import HELD_OUT_SEED, Bench, held_out, load_bench, segmented
from benchmarks.locality_edits import FIRST, OWN
from benchmarks.locality_methods import REGIONS
from lib.demo.faces import FACTORS
from lib.demo.regressor import Regressor, load, read
from lib.direction import Direction
from lib.editing.edit_plan import every_strength
from lib.editing.region_guard import RegionGuard
from lib.pixels import change
from lib.records import Region, Segmented
from lib.sampling.ddim_sampler import DdimSampler
from lib.shift import Shift
from tasks.edit import Editor

WINDOW = (560, 300)
TIMESTEP = 400
METHOD = "localised"
STEPS = (10, 20, 25, 50, 100)
BASE = 50
"""The default of a run, with its half and its double; and coarse grids."""
FULL = DIAL.index(1.0)
GUARD = RegionGuard(0.03, 0.03)


@cache
def bench_of(num_steps: int) -> Bench:
    """The embedded model on a grid; loaded once a process."""
    torch.set_num_threads(1)
    return load_bench(num_steps)


@cache
def regressor() -> Regressor:
    """Loaded once a process."""
    return load()


def measure(
    index: int,
    count: int,
    seed: int = HELD_OUT_SEED,
    steps: Sequence[int] = STEPS,
    base: int = BASE,
) -> tuple[list[Effect], list[Composition]]:
    """One of `count` faces of a seed, with its own directions, found in `base` steps."""
    face = _face(index, count, seed, base)
    bench = bench_of(base)
    node = bench.grid.nearest_node(TIMESTEP)
    found = methods.discovered(methods.place(bench, face, node), (METHOD,))[METHOD]
    directions = [
        methods.as_direction(bench, node, METHOD, REGIONS[r], torch.from_numpy(found.V_RD[r]))
        for r in range(len(REGIONS))
    ]
    full = list(FIRST[METHOD])
    regions = {r.name: r for r in face.regions}

    dials = [Shift(d, f * s) for d, f in zip(directions, full, strict=True) for s in DIAL]
    ends = [i for i in range(len(dials)) if i % len(DIAL) in (0, FULL)]
    images_BCHW = _edited(_editor(bench), face, dials, [])
    factors_BF = read(regressor(), images_BCHW)
    guard_BCHW = _edited(
        _editor(bench, GUARD), face, [dials[i] for i in ends],
        [regions[dials[i].direction.region] for i in ends],
    )  # fmt: skip
    on_grids = {base: images_BCHW[[0, *(1 + i for i in ends)]]}
    for num_steps in steps:
        if num_steps != base:
            other = _face(index, count, seed, num_steps)
            shifts = [dials[i] for i in ends]
            on_grids[num_steps] = _edited(_editor(bench_of(num_steps)), other, shifts, [])
    grid_factors = {n: read(regressor(), image_BCHW) for n, image_BCHW in on_grids.items()}

    effects = []
    for r, region in enumerate(REGIONS):
        mask_HW = regions[region].mask_HW
        rows = slice(1 + r * len(DIAL), 1 + (r + 1) * len(DIAL))
        change_SF = factors_BF[rows] - factors_BF[0]
        own = [FACTORS.index(name) for name in OWN[region]]
        factor = max(own, key=lambda f: abs(float(change_SF[FULL, f] - change_SF[0, f])))
        free_in, free_out = _changes(on_grids[base], r, mask_HW)
        held_in, held_out_ = _changes(guard_BCHW, r, mask_HW)
        effects.append(
            Effect(
                index,
                region,
                FACTORS[factor],
                tuple(change_SF[:, factor].tolist()),
                {n: _changes(x_BCHW, r, mask_HW)[0] for n, x_BCHW in on_grids.items()},
                {
                    n: float(f_BF[2 + 2 * r, factor] - f_BF[1 + 2 * r, factor]) / 2
                    for n, f_BF in grid_factors.items()
                },
                free_out / free_in,
                held_out_ / held_in,
                held_in / free_in,
            )
        )
    return effects, _compositions(face, bench, directions, full, effects, images_BCHW)


def _compositions(
    face: Segmented,
    bench: Bench,
    directions: Sequence[Direction],
    full: Sequence[float],
    effects: Sequence[Effect],
    images_BCHW: Tensor,
) -> list[Composition]:
    """Of every two regions, each at its full strength."""
    pairs = [(a, b) for b in range(len(REGIONS)) for a in range(b)]
    shifts = [Shift(directions[a], full[a], (Shift(directions[b], full[b]),)) for a, b in pairs]
    together_BCHW = _edited(_editor(bench), face, shifts, [])[1:]
    together_BF, alone_BF = read(regressor(), together_BCHW), read(regressor(), images_BCHW)
    masks = {r.name: r.mask_HW for r in face.regions}
    found = []
    for p, pair in enumerate(pairs):
        for mine, other in (pair, pair[::-1]):
            row, factor = 1 + mine * len(DIAL) + FULL, FACTORS.index(effects[mine].factor)
            mask_HW = masks[REGIONS[mine]]
            alone, _ = change(images_BCHW[row, None], images_BCHW[:1], mask_HW)
            apart, _ = change(together_BCHW[p, None], images_BCHW[row, None], mask_HW)
            both, _ = change(together_BCHW[p, None], images_BCHW[:1], mask_HW)
            moved = float(alone_BF[row, factor] - alone_BF[0, factor])
            sign = 1.0 if moved > 0 else -1.0
            found.append(
                Composition(
                    face.inverted.sample.index,
                    REGIONS[mine],
                    REGIONS[other],
                    sign * moved,
                    sign * float(together_BF[p, factor] - alone_BF[0, factor]),
                    float(both / alone),
                    float(apart / alone),
                )
            )
    return found


def _face(index: int, count: int, seed: int, num_steps: int) -> Segmented:
    samples, zones = held_out(count, seed)
    bench = bench_of(num_steps)
    inverted = bench.inverted(
        samples[index : index + 1],
        last=bench.grid.last_node(WINDOW[0]),
        keep=[bench.grid.nearest_node(TIMESTEP)],
        refinements=2,
    )
    return segmented(inverted, zones[index : index + 1], methods.BLOCKS)[0]


def _editor(bench: Bench, guard: RegionGuard | None = None) -> Editor:
    return Editor(
        bench.denoiser,
        bench.grid,
        window=WINDOW,
        injection="asymmetric",
        sampler=DdimSampler(),
        plan=every_strength((1.0,)),
        batch_size=16,
        h_norms=bench.h_norms,
        guard=guard,
    )


def _edited(
    editor: Editor, face: Segmented, shifts: Sequence[Shift], regions: Sequence[Region]
) -> Tensor:
    """The reconstruction and the edits, in [-1, 1]."""
    images_BCHW = editor.decode(face.inverted.latent, shifts, regions)
    if images_BCHW is None:
        raise ArithmeticError("the network gave NaN or infinity while a held-out face was edited")
    return images_BCHW.float() / 127.5 - 1


def _changes(images_BCHW: Tensor, r: int, mask_HW: Tensor) -> tuple[float, float]:
    """Mean inside and outside over - and +; the reconstruction first, then - and + by region."""
    pair_BCHW = images_BCHW[1 + 2 * r : 3 + 2 * r]
    inside, outside = change(pair_BCHW, images_BCHW[:1], mask_HW)
    return float(inside.mean()), float(outside.mean())
