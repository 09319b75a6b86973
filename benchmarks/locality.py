"""How local masked-Jacobian edits are, at equal in-region change: `python -m benchmarks.locality`.

ROIR = mean |change| outside the region / inside, both against the unedited reconstruction, images
in [-1, 1]; every strength is searched per face so that the inside changes by the same amount. A
low ROIR alone proves little (convolutions are local), so random directions stand beside it and the
factor regressor says what changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
import typer
from torch import Tensor

from benchmarks.embedded import Bench, held_out, load_bench, segmented
from benchmarks.machine import describe
from lib.demo.faces import FACTORS
from lib.demo.regressor import load, read
from lib.direction import Direction, stored
from lib.records import Segmented
from pipelines.strength_search import Matched, matched
from tasks.edit import Editor

REGIONS = ("eyes", "mouth")
WINDOW = (700, 300)
TIMESTEP = 368
NUM_STEPS = 20
TARGET = 0.15


@dataclass(frozen=True, slots=True)
class Locality:
    """Per region, over faces."""

    region: str
    plus: list[float]
    """ROIR of the top direction with the positive sign."""
    minus: list[float]
    random: list[list[float]]
    """ROIR of each random direction."""
    strength: list[float]

    @property
    def best_random(self) -> float:
        """Median of the random direction with the lowest median."""
        return min(median(values) for values in self.random)


@dataclass(frozen=True, slots=True)
class Transfer:
    """One face's direction on the others."""

    region: str
    roir: list[float]
    cosine: list[float]
    """Of the change of all factors with the change that the direction makes on its own face."""
    main_factor: str
    main_change: list[float]

    @property
    def consistency(self) -> float:
        """Share of faces on which the main factor moves as it does on most."""
        positive = sum(c > 0 for c in self.main_change)
        return max(positive, len(self.main_change) - positive) / len(self.main_change)


@dataclass(frozen=True, slots=True)
class Scene:
    """Held-out faces, inverted, with their own top directions."""

    editor: Editor
    faces: list[Segmented]
    directions: list[dict[str, Direction]]


def prepare(bench: Bench, count: int) -> Scene:
    """Invert `count` held-out faces and find the top direction of every region."""
    editor = bench.editor(WINDOW)
    node = bench.grid.nearest_node(TIMESTEP)
    samples, zones = held_out(count)
    last = bench.grid.last_node(WINDOW[0])
    inverted = bench.inverted(samples, last=last, keep=[node], refinements=2)
    faces = segmented(inverted, zones, REGIONS)
    found = bench.discover(faces, node, 1)
    return Scene(editor, faces, [{d.region: d for d in own} for own in found])


def own_face(scene: Scene, random_seeds: Sequence[int] = (1, 2, 3)) -> list[Locality]:
    """Top direction, both signs, and random directions, on the face itself."""
    results = [Locality(r, [], [], [[] for _ in random_seeds], []) for r in REGIONS]
    for face, own in zip(scene.faces, scene.directions, strict=True):
        tops = [own[name] for name in REGIONS]
        randoms = [_random(d, seed) for seed in random_seeds for d in tops]
        plus = _edits(scene.editor, face, tops, first=0.06)
        minus = _edits(scene.editor, face, tops, first=0.06, sign=-1.0)
        noise = _edits(scene.editor, face, randoms, first=1.0)
        for i, result in enumerate(results):
            result.plus.append(plus[i].roir)
            result.minus.append(minus[i].roir)
            result.strength.append(plus[i].strength)
            for seed, values in enumerate(result.random):
                values.append(noise[seed * len(REGIONS) + i].roir)
    return results


def transfer(scene: Scene, targets: Sequence[int]) -> list[Transfer]:
    """Face 0's directions on the faces `targets`, against what they do on face 0."""
    regressor = load()

    def factor_change(edit: Matched) -> Tensor:
        pair_BCHW = torch.stack([edit.image_CHW, edit.reconstruction_CHW])
        factors_BF = read(regressor, pair_BCHW)
        return factors_BF[0] - factors_BF[1]

    tops = [scene.directions[0][name] for name in REGIONS]
    home = [factor_change(e) for e in _edits(scene.editor, scene.faces[0], tops, first=0.1)]
    edits = [_edits(scene.editor, scene.faces[i], tops, first=0.1) for i in targets]
    results = []
    for i, region in enumerate(REGIONS):
        changes_BF = torch.stack([factor_change(row[i]) for row in edits])
        main = int(changes_BF.mean(0).abs().argmax())
        results.append(
            Transfer(
                region,
                [row[i].roir for row in edits],
                torch.cosine_similarity(changes_BF, home[i][None]).tolist(),
                FACTORS[main],
                changes_BF[:, main].tolist(),
            )
        )
    return results


def _edits(
    editor: Editor,
    face: Segmented,
    directions: Sequence[Direction],
    *,
    first: float,
    sign: float = 1.0,
) -> list[Matched]:
    zones = {r.name: r.mask_HW for r in face.regions}
    mask_HWs = [zones[d.region] for d in directions]
    start_LYX = face.inverted.start_LYX
    return matched(editor, start_LYX, directions, mask_HWs, target=TARGET, first=first, sign=sign)


def _random(like: Direction, seed: int) -> Direction:
    generator = torch.Generator().manual_seed(seed)
    noise_SCYX = torch.randn(like.vector_SCYX.shape, generator=generator)
    return replace(like, vector_SCYX=stored(noise_SCYX, "float32"), method="random")


def main(faces: int = 16, targets: int = 8) -> None:
    """Print ROIR of own directions against random ones, and of transferred directions."""
    torch.set_num_threads(1)
    print(describe())
    print(
        f"{faces} held-out faces, {NUM_STEPS} steps, 2 refinements, direction of t={TIMESTEP},"
        f" window {WINDOW}, asymmetric, in-region change {TARGET}"
    )
    scene = prepare(load_bench(NUM_STEPS), faces)
    print("region  ROIR + [min-max]     ROIR - [min-max]     random (best of 3)  ratio  strength")
    for row in own_face(scene):
        ratio = median(row.plus) / row.best_random
        print(
            f"{row.region:6s}  {_spread(row.plus)}  {_spread(row.minus)}  {row.best_random:18.3f}"
            f"  {ratio:5.2f}  {median(row.strength):8.3f}"
        )
    print(f"transfer of face 0's direction to {targets} other faces")
    print("region  ROIR [min-max]       cosine mean [min]  main factor  change  same sign")
    for moved in transfer(scene, range(1, 1 + targets)):
        cosine = sum(moved.cosine) / len(moved.cosine)
        change = sum(moved.main_change) / len(moved.main_change)
        print(
            f"{moved.region:6s}  {_spread(moved.roir)}  {cosine:6.2f} [{min(moved.cosine):5.2f}]"
            f"     {moved.main_factor:11s}  {change:+.2f}  {moved.consistency:.2f}"
        )


def _spread(values: Sequence[float]) -> str:
    return f"{median(values):.3f} [{min(values):.3f}-{max(values):.3f}]"


if __name__ == "__main__":
    typer.run(main)
