"""What is left of a face when its smile is changed by the same amount with one method or another,
in the form of Hou et al. 2023, Table 2. `python -m benchmarks.identity TRAINING TRAINING ...`.

Identity is what the factors say but for the edited one, and the cosine of the embedded regressor's
features: there is no face recognition for cartoon faces.

Shape suffixes: N faces, S strengths, F factors, E features; B, C, H, W of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import typer
from torch import Tensor
from torch.nn.functional import cosine_similarity

from benchmarks.embedded import HELD_OUT_SEED, Bench, load_bench
from benchmarks.learned_effects import editors_at, faces_of, inverted, own_of
from benchmarks.machine import describe
from lib.demo.faces import FACTORS, sample_factors
from lib.demo.regressor import load, read
from lib.direction import Direction
from lib.editors.learned_editor import LearnedEditor
from lib.metrics.embeddings import EmbeddedFeatures
from lib.records import Inverted
from lib.shift import Shift

NUM_STEPS = 20
STRENGTHS = (0.25, 0.5, 0.75, 1.0, 1.5)


def main(
    trainings: Annotated[list[str], typer.Argument(help="Folders of trainings or libraries.")],
    faces: Annotated[int, typer.Option(help="Held-out faces.")] = 12,
    change: Annotated[float, typer.Option(help="Of the edited factor, in every face.")] = 0.4,
) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    print(describe())
    print(
        f"{faces} held-out faces (seed {HELD_OUT_SEED}), {NUM_STEPS} steps, each editor in its own"
        f" window; the strength of each face is that at which its factor has risen by {change},"
        f"\nread off between strengths {', '.join(f'{s:g}' for s in STRENGTHS)}; similarity: cosine"
        " of the embedded regressor's features; reached: faces that get there"
    )
    bench = load_bench(NUM_STEPS)
    drawn = faces_of(sample_factors(faces, HELD_OUT_SEED), "held-out")
    print("\neditor           method              strength  similarity        others            L1"
          "                reached")  # fmt: skip
    for path in trainings:
        for editor in editors_at(path, bench):
            if editor.window is None:
                continue
            latents = inverted(bench, drawn, editor.window[0])
            _print(editor, _seen(bench, editor, latents), change)


def _seen(
    bench: Bench, editor: Direction | LearnedEditor, latents: Sequence[Inverted]
) -> dict[str, Tensor]:
    """(N, S) of the own factor's change, the similarity, the others' and the pixels' changes; the
    first strength is 0.
    """
    own = own_of(editor.label)
    window = editor.window
    if own is None or window is None:
        raise ValueError(f"{editor.label}: expected an editor of a known factor with a window")
    factor = FACTORS.index(own[0])
    stage, regressor = bench.editor(window, len(STRENGTHS)), load()
    features = EmbeddedFeatures(torch.device("cpu"))
    rows: dict[str, list[Tensor]] = {n: [] for n in ("own", "similarity", "others", "L1")}
    for face in latents:
        shifts = [Shift(editor, strength) for strength in STRENGTHS]
        x0_LYX = bench.denoiser.latent(face.sample.image_CHW[None])[0]
        image_BCHW = stage.decoder(face.latent, shifts, x0_LYX=x0_LYX).x_BLYX.clamp(-1, 1)
        change_BF = read(regressor, image_BCHW) - read(regressor, image_BCHW[:1])
        feature_BE = features(image_BCHW)
        others = [f for f in range(len(FACTORS)) if f != factor]
        rows["own"].append(change_BF[:, factor])
        rows["similarity"].append(cosine_similarity(feature_BE, feature_BE[:1], dim=1))
        rows["others"].append(change_BF[:, others].abs().mean(dim=1))
        rows["L1"].append((image_BCHW - image_BCHW[:1]).abs().mean(dim=(1, 2, 3)))
    return {name: torch.stack(values) for name, values in rows.items()}


def _print(editor: Direction | LearnedEditor, seen: dict[str, Tensor], change: float) -> None:
    found: dict[str, list[float]] = {n: [] for n in ("strength", "similarity", "others", "L1")}
    strengths = (0.0, *STRENGTHS)
    for n, own_S in enumerate(seen["own"].tolist()):
        place = next((s for s in range(1, len(own_S)) if own_S[s - 1] < change <= own_S[s]), None)
        if place is None:
            continue
        share = (change - own_S[place - 1]) / (own_S[place] - own_S[place - 1])
        found["strength"].append(_between(strengths, place, share))
        for name in ("similarity", "others", "L1"):
            found[name].append(_between(seen[name][n].tolist(), place, share))
    texts = {name: _spread(values) for name, values in found.items()}
    print(
        f"{editor.label or '':15s}  {editor.method:18s}  {texts['strength']}  {texts['similarity']}"
        f"  {texts['others']}  {texts['L1']}  {len(found['L1'])}/{len(seen['own'])}",
        flush=True,
    )


def _between(values: Sequence[float], place: int, share: float) -> float:
    return values[place - 1] + share * (values[place] - values[place - 1])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-".ljust(16)
    value_N = torch.tensor(values)
    return f"{value_N.mean():.3f} +- {value_N.std(unbiased=False):.3f}"


if __name__ == "__main__":
    typer.run(main)
