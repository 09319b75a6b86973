"""Do learned editors do what they were trained for, on faces that they have not seen and on faces
outside of the training range? `python -m benchmarks.learned`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.embedded import HELD_OUT_SEED, Bench, load_bench
from benchmarks.learned_effects import Effects, editors_at, effects, faces_of, inverted
from benchmarks.machine import describe
from lib.demo.faces import FACTORS, sample_factors
from lib.direction import Direction
from lib.editors.learned_editor import LearnedEditor

NUM_STEPS = 20
STRENGTHS = (-1.0, -0.5, 0.5, 1.0, 1.5)
AIMS = {"smile": (0.4, 0.12, 0.22), "eye_open": (0.8, 0.2, 0.2)}
"""Factor -> at strength 1 its change at least, the others and ROIR at most."""
OUTSIDE = {
    "proportions": ("face_w", "scale", "pos_y", "hair_len"),
    "colours": ("skin", "hair_col", "bg_hue", "lip_col"),
}
"""Set of faces -> factors that are drawn beyond the training range."""
REACH = (1.15, 1.5)
"""Of their |value|; faces were trained on values up to 1."""
_ONE = STRENGTHS.index(1.0)


def main(
    editors: Annotated[
        list[str] | None, typer.Argument(help="Libraries or trainings; default: the shipped ones.")
    ] = None,
    faces: Annotated[int, typer.Option(help="Held-out faces.")] = 16,
) -> None:
    """Print the tables."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(describe())
    print(
        f"{faces} held-out faces (seed {HELD_OUT_SEED}), {NUM_STEPS} steps, asymmetric, each editor"
        " in its own window; change of the factor that it is for,\nmean |change| of the 15 others,"
        " median ROIR against the zone of the part; right: faces that move the right way"
    )
    bench = load_bench(NUM_STEPS)
    found = [each for path in editors or ["embedded"] for each in editors_at(path, bench)]
    factors_NF = sample_factors(faces, HELD_OUT_SEED)
    inside = {}
    print("\neditor           type          strength  change  [least, most]   right  others  ROIR"
          "   most moved")  # fmt: skip
    for editor, seen in _measured(bench, found, factors_NF, "held-out", STRENGTHS):
        inside[editor.id] = seen
        _print_editor(editor, seen)
    print(
        f"\noutside of the training range, strength 1: values of {_named()} drawn from"
        f" +-[{REACH[0]}, {REACH[1]}]; drop: change lost against the held-out faces\n"
        "editor           faces        change  drop   right  others  ROIR   reconstruction dB"
        " (held-out)"
    )
    for name, beyond in OUTSIDE.items():
        outer_NF = _beyond(factors_NF, beyond)
        for editor, seen in _measured(bench, found, outer_NF, name, (1.0,)):
            _print_outside(editor, name, seen, inside[editor.id])


def _measured(
    bench: Bench,
    editors: Sequence[Direction | LearnedEditor],
    factors_NF: Tensor,
    name: str,
    strengths: Sequence[float],
) -> list[tuple[Direction | LearnedEditor, Effects]]:
    """All editors on faces of these factors, inverted once."""
    faces = faces_of(factors_NF, name)
    tops = {editor.window[0] for editor in editors if editor.window is not None}
    latents = {top: inverted(bench, faces, top) for top in tops}
    return [
        (editor, effects(bench, editor, faces, latents[editor.window[0]], strengths))
        for editor in editors
        if editor.window is not None
    ]


def _beyond(factors_NF: Tensor, names: Sequence[str]) -> Tensor:
    outer_NF = factors_NF.clone()
    low, high = REACH
    for name in names:
        value_N = factors_NF[:, FACTORS.index(name)]
        outer_NF[:, FACTORS.index(name)] = value_N.sign() * (low + (high - low) * value_N.abs())
    return outer_NF


def _print_editor(editor: Direction | LearnedEditor, seen: Effects) -> None:
    for place, strength in enumerate(STRENGTHS):
        own_N = seen.own(place)
        right = float(((own_N * strength) > 0).float().mean())
        worst, size = seen.worst(place)
        print(
            f"{editor.label or '':15s}  {_type(editor):12s}  {strength:+8.1f}  {own_N.mean():+6.2f}"
            f"  [{own_N.min():+.2f}, {own_N.max():+.2f}]  {right:5.0%}  {seen.others(place):6.3f}"
            f"  {seen.roir(place):5.3f}  {worst} {size:.2f}"
        )
    means = [float(seen.own(place).mean()) for place in range(len(STRENGTHS))]
    monotone = all(a < b for a, b in pairwise(means))
    factor = FACTORS[seen.factor]
    least, most, roir = AIMS[factor]
    reached = means[_ONE] >= least and seen.others(_ONE) <= most and seen.roir(_ONE) <= roir
    everyone = bool((seen.own(_ONE) > 0).all())
    print(
        f"* {editor.label}, strength 1: {factor} {means[_ONE]:+.2f} (at least {least:+.1f}), others"
        f" {seen.others(_ONE):.3f} (at most {most}), ROIR {seen.roir(_ONE):.3f} (at most {roir}):"
        f" {'reached' if reached else 'not reached'}; every face the right way:"
        f" {'yes' if everyone else 'no'}; monotone: {'yes' if monotone else 'no'}",
        flush=True,
    )


def _print_outside(
    editor: Direction | LearnedEditor, name: str, seen: Effects, before: Effects
) -> None:
    own_N = seen.own(0)
    drop = 1 - float(own_N.mean() / before.own(_ONE).mean())
    print(
        f"{editor.label or '':15s}  {name:11s}  {own_N.mean():+6.2f}  {drop:+4.0%}"
        f"  {float((own_N > 0).float().mean()):5.0%}  {seen.others(0):6.3f}  {seen.roir(0):5.3f}"
        f"  {seen.psnr_N.mean():.1f} ({before.psnr_N.mean():.1f})",
        flush=True,
    )


def _type(editor: Direction | LearnedEditor) -> str:
    return "direction" if isinstance(editor, Direction) else editor.type


def _named() -> str:
    return "; ".join(f"{name}: {', '.join(factors)}" for name, factors in OUTSIDE.items())


if __name__ == "__main__":
    typer.run(main)
