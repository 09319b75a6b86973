"""What an exact inversion is worth for editing: one and the same edit after every sampler, held
against DDIM's: `python -m benchmarks.inversion_edits`.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.embedded import Bench, held_out, load_bench, segmented
from benchmarks.machine import describe
from lib.direction import Direction
from lib.editing.edit_plan import every_strength
from lib.pixels import psnr
from lib.records import Sample
from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import EtaSchedule, constant_eta
from lib.sampling.sampler import Sampler
from lib.shift import Shift
from tasks.edit import Editor
from tasks.invert import Inverter

WINDOW = (560, 300)
FOUND_AT = 400
REGION = "mouth"
STRENGTH = 0.02
SAMPLERS: dict[str, Sampler] = {
    "DDIM, 3 evaluations": DdimSampler(2),
    "DDIM": DdimSampler(),
    "EDICT, mixing 0.93": EdictSampler(),
    "EDICT, mixing 0.97": EdictSampler(0.97),
    "BDIA, gamma 1": BdiaSampler(),
    "BDIA, gamma 0.95": BdiaSampler(0.95),
    "DDPM, eta 1": DdpmSampler(constant_eta(1.0)),
    "DDPM, eta 0.3": DdpmSampler(constant_eta(0.3)),
    "DDPM, eta 1 above 400": DdpmSampler(EtaSchedule(((400, 0.0), (401, 1.0)))),
}
"""The first is what the others are held to."""


@torch.no_grad()
def edited(
    bench: Bench, sampler: Sampler, face: Sample, direction: Direction
) -> tuple[Tensor, float, float]:
    """(plain, +, -) in [-1, 1], neither clamped nor rounded; std of x_t; evaluations."""
    last = bench.grid.last_node(WINDOW[0])
    stage = Inverter(
        bench.denoiser, bench.grid, last=last, keep=frozenset(), sampler=sampler, batch_size=1
    )
    (found,) = stage([face], _refuse)
    editor = Editor(
        bench.denoiser,
        bench.grid,
        sampler=sampler,
        window=WINDOW,
        injection="asymmetric",
        plan=every_strength((STRENGTH,)),
        batch_size=8,
        h_norms=bench.h_norms,
    )
    shifts = [Shift(direction, STRENGTH), Shift(direction, -STRENGTH)]
    decoded = editor.decoder(found.latent, shifts)
    spent = stage.evaluations + decoded.evaluations
    return decoded.x_BLYX, float(found.latent.x_LYX.std()), spent


def main(
    faces: Annotated[int, typer.Option(help="Held-out faces.")] = 8,
    num_steps: Annotated[int, typer.Option(help="N.")] = 50,
) -> None:
    """Print one table."""
    torch.set_num_threads(1)
    bench = load_bench(num_steps)
    samples, zones = held_out(faces)
    node = bench.grid.nearest_node(FOUND_AT)
    inverted = bench.inverted(samples, last=node, keep=[node], refinements=2)
    found = bench.discover(segmented(inverted, zones, [REGION]), node, 1)
    print(describe())
    print(
        f"{faces} held-out faces, N = {num_steps}; the strongest direction of the {REGION} at"
        f" t = {FOUND_AT}, strength +-{STRENGTH:g}, asymmetric, window {WINDOW};\nchange: edited"
        " minus own reconstruction, held to that of the first row; both signs: cosine of the change"
        " at + with minus that at -"
    )
    print("sampler                 PSNR  std x_t  evaluations  cosine   size  both signs")
    expected: list[Tensor] = []
    for name, sampler in SAMPLERS.items():
        rows = []
        for i, (face, (direction,)) in enumerate(zip(samples, found, strict=True)):
            (plain, plus, minus), std, spent = edited(bench, sampler, face, direction)
            change_N = (plus - plain).flatten()
            if len(expected) == i:
                expected.append(change_N)
            rows.append(
                (
                    psnr(plain, face.image_CHW),
                    std,
                    spent,
                    _cosine(change_N, expected[i]),
                    float(change_N.norm() / expected[i].norm()),
                    _cosine(change_N, (plain - minus).flatten()),
                )
            )
        db, std, spent, cosine, size, both = (sum(c) / faces for c in zip(*rows, strict=True))
        print(
            f"{name:22}  {db:4.1f}  {std:7.2f}  {spent:11.0f}  {cosine:6.3f}  {size:5.2f}"
            f"  {both:10.3f}",
            flush=True,
        )


def _cosine(one_N: Tensor, other_N: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(one_N, other_N, dim=0))


def _refuse(failure: object) -> None:
    raise ArithmeticError(f"a held-out face was rejected: {failure}")


if __name__ == "__main__":
    typer.run(main)
