"""Directions from labelled faces on the embedded model, on a smaller set than the benchmark's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.embedded import Bench, load_bench
from benchmarks.stage_cache import kept
from benchmarks.supervised import NUM_STEPS, outcomes, strongest_side_effects
from benchmarks.supervised_directions import Training, confounded, label_directions, training
from benchmarks.supervised_effects import (
    Effects,
    Named,
    effects,
    factor_reader,
    places,
    side_effect,
)
from lib.demo.faces import FACTORS
from lib.direction import Direction
from lib.discovery.window_choice import Choice
from pipelines.window_search import Placed

WINDOW = (272, 0)
HAIR, BACKGROUND = FACTORS.index("hair_len"), FACTORS.index("bg_grad")


@pytest.fixture(scope="module")
def bench() -> Bench:
    return load_bench(NUM_STEPS)


@pytest.fixture(scope="module")
def known(bench: Bench) -> Training:
    return training(bench, 96, WINDOW[0])


def at_strength(direction: Direction, strength: float) -> Placed:
    choice = Choice(WINDOW, 1.0, 0.0, 0.0, 1.0, 0.0)
    windowed = replace(direction, window=WINDOW)
    return Placed(windowed, strength, choice, torch.zeros(len(FACTORS)))


@pytest.mark.timeout(300)
def test_projecting_out_the_other_direction_halves_the_side_effect_of_confounded_labels(
    bench: Bench, known: Training
) -> None:
    directions = label_directions(bench, known, "mean")
    mixed = confounded(bench, known, "mean", HAIR, BACKGROUND)
    faces = places(bench, [WINDOW], 4, 9191)
    row = side_effect(
        Named("hair_len", HAIR, at_strength(mixed, 0.5)),
        Named("bg_grad", BACKGROUND, at_strength(directions[BACKGROUND], 0.5)),
        faces,
        factor_reader(),
    )
    assert abs(row.side) > 0.3 * abs(row.own)
    assert row.own_after == pytest.approx(row.own, rel=0.2)
    assert row.left <= 0.5


@pytest.mark.timeout(300)
def test_a_direction_from_labels_moves_its_factor_both_ways_on_faces_it_never_saw(
    bench: Bench, known: Training
) -> None:
    names = ("skin", "bg_grad")
    directions = label_directions(bench, known, "mean")
    chosen = [at_strength(directions[FACTORS.index(name)], 0.3) for name in names]
    found = effects(chosen, places(bench, [WINDOW], 4, 9191), factor_reader())
    for p, name in enumerate(names):
        own_N2 = found.change_PN2F[p, :, :, FACTORS.index(name)]
        assert bool((own_N2[:, 0] > 0).all())
        assert bool((own_N2[:, 1] < 0).all())


def some_placed(agreement: float, change_F: torch.Tensor) -> Placed:
    choice = Choice(WINDOW, 1.0, 0.5, 0.1, agreement, 1.0)
    direction: Any = None  # no edit is made
    return Placed(direction, 0.3, choice, change_F)


def test_the_shares_and_means_of_the_table_are_those_of_plain_counting() -> None:
    change_PN2F = torch.zeros(16, 4, 2, 16)
    change_PN2F[2, :, 0, 2] = torch.tensor([0.1, 0.2, -0.1, 0.4])
    change_PN2F[2, :, 1, 2] = torch.tensor([-0.1, -0.2, -0.1, -0.4])
    change_PN2F[2, :, :, 5] = 0.3
    found = Effects(torch.full((16, 4, 2), 0.03), change_PN2F)
    row = outcomes("mean", [some_placed(1.0, torch.zeros(16))] * 16, found)[2]
    assert (row.factor, row.right) == (FACTORS[2], (0.75, 1.0))
    assert row.change == (pytest.approx(0.15), pytest.approx(-0.2))
    assert row.others == pytest.approx(0.3 / 15)
    assert not row.moves


def test_side_effects_are_those_of_directions_that_do_what_they_say() -> None:
    change_PF = 0.1 * torch.eye(16)
    change_PF[0, 3], change_PF[1, 4], change_PF[2, 5] = -0.09, 0.05, 0.5
    chosen = [some_placed(1.0, change_PF[p]) for p in range(16)]
    chosen[2] = some_placed(0.9, change_PF[2])
    assert strongest_side_effects(chosen, 2) == [(0, 3), (1, 4)]


def test_a_stage_is_made_once_for_the_same_settings(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> int:
        made.append(1)
        return len(made)

    settings = ("model", 12)
    assert [kept(tmp_path, "stage", settings, make) for _ in range(2)] == [1, 1]
    assert kept(tmp_path, "stage", ("model", 16), make) == 2
    assert kept(None, "stage", settings, make) == 3
