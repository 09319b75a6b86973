"""What placed directions do to faces they were not fitted on, and what projecting one direction out
of another takes away.

Shape suffixes: P directions, N faces, 2 signs (+ first), F factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.embedded import Bench, held_out
from lib.demo.regressor import load, read
from lib.direction import Direction, projected_out
from lib.sampling.sampler import plain_latent
from lib.shift import Shift
from pipelines.direction_effects import Factors
from pipelines.window_search import Place, Placed, effect

REFINEMENTS = 2
_BATCH = 16
_ROUNDS = 2
_EQUAL = 0.1

Window = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Effects:
    """Edits of held-out faces, plus and minus."""

    whole_PN2: Tensor
    """Mean |edited - reconstruction|."""
    change_PN2F: Tensor


@dataclass(frozen=True, slots=True)
class Named:
    """A placed direction and the factor it is for."""

    name: str
    factor: int
    placed: Placed


@dataclass(frozen=True, slots=True)
class SideEffect:
    """A direction before and after another was projected out, at equal change of its own factor."""

    direction: str
    removed: str
    own: float
    """Mean change of the direction's factor, towards the sign of the edit."""
    own_after: float
    side: float
    """The same of the removed direction's factor."""
    side_after: float
    cosine: float
    """Between the two directions, mean over the steps in the window."""

    @property
    def left(self) -> float:
        """|side effect| an own change, after / before."""
        return abs(self.side_after / self.own_after) / abs(self.side / self.own)


def factor_reader() -> Factors:
    """The embedded regressor."""
    regressor = load()
    return lambda image_BCHW: read(regressor, image_BCHW)


def places(bench: Bench, windows: Sequence[Window], count: int, seed: int) -> dict[Window, Place]:
    """Generated faces, inverted once, at the top of every window; by the window's first and last
    grid timestep.
    """
    faces, _ = held_out(count, seed)
    editors = [bench.editor(window, _BATCH) for window in windows]
    tops = [bench.grid.nearest_node(editor.edited_timesteps[0]) for editor in editors]
    inverted = bench.inverted(faces, last=max(tops), keep=tops, refinements=REFINEMENTS)
    found = [
        Place(editor, [plain_latent(face.states_LYX[t]) for face in inverted])
        for editor in editors
        for t in editor.edited_timesteps[:1]
    ]
    return {place.window: place for place in found}


def effects(chosen: Sequence[Placed], at: Mapping[Window, Place], read_factors: Factors) -> Effects:
    """Every direction at plus and minus its strength, each in its own window."""
    faces = len(next(iter(at.values())).latents)
    factors = None
    whole_PN2 = torch.zeros(len(chosen), faces, 2)
    for window, place in at.items():
        rows = [p for p, one in enumerate(chosen) if one.choice.window == window]
        if not rows:
            continue
        shifts = [Shift(chosen[p].direction, s * chosen[p].strength) for p in rows for s in (1, -1)]
        for n, latent in enumerate(place.latents):
            found = effect(place.editor, latent, shifts, read_factors)
            if factors is None:
                factors = torch.zeros(len(chosen), faces, 2, found.change_KF.shape[1])
            whole_PN2[rows, n] = found.whole_K.view(-1, 2)
            factors[rows, n] = found.change_KF.view(len(rows), 2, -1)
    if factors is None:
        raise ValueError(f"no direction is to be applied in the windows {list(at)}")
    return Effects(whole_PN2, factors)


def towards_sign(change_PN2F: Tensor) -> Tensor:
    """Mean change over faces and signs, counted towards the sign of the edit: (P, F)."""
    return (change_PN2F * torch.tensor([1.0, -1.0])[None, None, :, None]).mean((1, 2))


def side_effect(
    first: Named,
    second: Named,
    at: Mapping[Window, Place],
    read_factors: Factors,
    before_F: Tensor | None = None,
) -> SideEffect:
    """Project the second direction out of the first and edit with what is left, at the strength
    that moves the first's factor as the first did. `before_F`: what the first does, where that was
    measured.
    """
    own, other, one = first.factor, second.factor, first.placed
    if before_F is None:
        before_F = towards_sign(effects([one], at, read_factors).change_PN2F)[0]
    left = projected_out(one.direction, [second.placed.direction])
    after = replace(one, direction=replace(left, window=one.choice.window))
    after_F = towards_sign(effects([after], at, read_factors).change_PN2F)[0]
    for _ in range(_ROUNDS):
        scale = float((before_F[own] / after_F[own]).clamp(0.3, 3.0))
        if abs(scale - 1) < _EQUAL:
            break
        after = replace(after, strength=after.strength * scale)
        after_F = towards_sign(effects([after], at, read_factors).change_PN2F)[0]
    return SideEffect(
        direction=first.name,
        removed=second.name,
        own=float(before_F[own]),
        own_after=float(after_F[own]),
        side=float(before_F[other]),
        side_after=float(after_F[other]),
        cosine=_cosine(one.direction, second.placed.direction, one.choice.window),
    )


def _cosine(one: Direction, other: Direction, window: Window) -> float:
    inside = [s for s, t in enumerate(one.timesteps) if window[1] <= t <= window[0]]
    product_SCYX = one.vector_SCYX[inside] * other.vector_SCYX[inside]
    return float(product_SCYX.sum((1, 2, 3)).mean())
