"""The evaluate stage: every edit keeps its place and its own numbers, at any batch size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.metrics import changes
from lib.metrics.changes import edit_changes, fidelity
from lib.metrics.columns import EDIT, FIXED
from lib.metrics.posterior_gap import PosteriorGap
from lib.metrics.rules import parse_rule
from lib.pixels import as_floats, quantised
from lib.records import Edit, Edited, Evaluated, Failure, Renoised, Sample
from lib.regions import make_region
from lib.sampling.grid import Grid
from tasks.evaluate import Attributes, Evaluator

SIDE = 16
EDITS = 5


def edited_sample(sample: Callable[..., Sample], index: int) -> Edited:
    """A sample with five edits of random pixels and masks."""
    generator = torch.Generator().manual_seed(index)
    origin = sample(index, size=SIDE)

    def pixels() -> Tensor:
        noise_CHW = torch.randn(3, SIDE, SIDE, generator=generator)
        return quantised(origin.image_CHW + 0.2 * noise_CHW)

    edits = tuple(
        Edit(
            make_region(f"r{n}", torch.rand(SIDE, SIDE, generator=generator)),
            Renoised(300, 0.5, n),
            pixels(),
        )
        for n in range(EDITS)
    )
    return Edited(origin, pixels(), 12.0, edits)


def evaluated(items: list[Edited], batch_size: int = 16, **options: Any) -> list[Evaluated]:
    failures: list[Failure] = []
    stage = Evaluator(device=torch.device("cpu"), batch_size=batch_size, **options)
    found = list(stage(items, failures.append))
    assert failures == []
    return found


def test_every_edit_has_the_numbers_of_its_own_pixels_and_mask(
    sample: Callable[..., Sample],
) -> None:
    items = [edited_sample(sample, index) for index in range(2)]
    for item, found in zip(items, evaluated(items), strict=True):
        assert found.edited is item
        assert found.sample is item.sample
        assert found.network_evaluations == 12.0, "pixels cost no network"
        assert [score.position for score in found.scores] == list(range(EDITS))
        before_CHW = as_floats(item.reconstruction_CHW)
        shared = fidelity(before_CHW, item.sample.image_CHW)
        for score, edit in zip(found.scores, item.edits, strict=True):
            assert score.edit is edit
            (own,) = edit_changes(
                as_floats(edit.image_CHW[None]),
                before_CHW,
                item.sample.image_CHW,
                edit.region.mask_HW[None],
            )
            assert score.metrics == pytest.approx({**own, **shared, "posterior_gap": None})
            assert score.metrics.keys() == set(FIXED)
            assert score.filtered is None


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_a_smaller_batch_measures_the_same(sample: Callable[..., Sample], batch_size: int) -> None:
    items = [edited_sample(sample, 0)]
    (usual,), (other,) = evaluated(items), evaluated(items, batch_size)
    for one, two in zip(usual.scores, other.scores, strict=True):
        for name in EDIT:
            assert one.metrics[name] == pytest.approx(two.metrics[name], rel=1e-5)


def test_an_edit_has_the_first_rule_that_it_breaks(sample: Callable[..., Sample]) -> None:
    (plain,) = evaluated([edited_sample(sample, 0)])
    middle = sorted(float(s.metrics["in_change"] or 0) for s in plain.scores)[EDITS // 2]
    rules = [parse_rule(f"in_change <= {middle + 1e-6}"), parse_rule("psnr > 99")]
    (found,) = evaluated([edited_sample(sample, 0)], rules=rules)
    for score, same in zip(found.scores, plain.scores, strict=True):
        assert score.metrics == same.metrics
        above = float(score.metrics["in_change"] or 0) > middle + 1e-6
        assert score.filtered == rules[0 if above else 1].text
    assert {score.filtered for score in found.scores} == {rule.text for rule in rules}


class Reader:
    """Attributes in closed form: the mean of each colour."""

    def __init__(self) -> None:
        self.images = 0

    def scores(self, image_BCHW: Tensor) -> Tensor:
        self.images += len(image_BCHW)
        return image_BCHW.mean((2, 3))


def brightness(original_BCHW: Tensor, edited_BCHW: Tensor) -> Tensor:
    return (edited_BCHW - original_BCHW).mean((1, 2, 3))


@pytest.mark.parametrize("batch_size", [2, 16])
def test_scores_and_attributes_are_columns_under_their_names(
    sample: Callable[..., Sample], batch_size: int
) -> None:
    item = edited_sample(sample, 0)
    reader = Reader()
    (found,) = evaluated(
        [item],
        batch_size,
        scorers={"light": brightness},
        attributes=Attributes(reader, {"blue": 2, "red": 0}),
        rules=[parse_rule("score_light < 99"), parse_rule("change_red < 99")],
    )
    assert reader.images == 1 + EDITS, "the reconstruction once"
    before_CHW = as_floats(item.reconstruction_CHW)
    for score, edit in zip(found.scores, item.edits, strict=True):
        image_CHW = as_floats(edit.image_CHW)
        light = float((image_CHW - item.sample.image_CHW).mean())
        assert score.metrics["score_light"] == pytest.approx(light, abs=1e-6)
        for column, name in ((2, "blue"), (0, "red")):
            moved = float((image_CHW - before_CHW)[column].mean())
            assert score.metrics[f"change_{name}"] == pytest.approx(moved, abs=1e-6)
        assert score.filtered is None


def test_the_posterior_gap_is_the_error_of_the_noise_of_a_linear_network(
    linear: Any, grid: Grid, sample: Callable[..., Sample]
) -> None:
    """eps = E_t x with E_t known; the expectation over z of |z - E_t x|^2 / N in float64."""
    nodes = (2, 5)
    gap = PosteriorGap(linear, grid, nodes)
    image_CHW = sample(0).image_CHW
    found = np.mean([gap(image_CHW, seed) for seed in range(400)])
    x0_N, expected = image_CHW.double().numpy().ravel(), []
    for node in nodes:
        alpha, E_NN = grid.alphas[node], linear.E_NN(grid.timestep(node))
        left_NN = np.eye(48) - np.sqrt(1 - alpha) * E_NN
        mean_N = np.sqrt(alpha) * E_NN @ x0_N
        expected.append(((left_NN**2).sum() + (mean_N**2).sum()) / 48)
    assert found == pytest.approx(np.mean(expected), rel=0.03), "400 noises of 48 entries"
    assert gap.evaluations == 2
    assert linear.rows == {"predict": 800}
    assert gap(image_CHW, 1) == gap(image_CHW, 1)
    assert gap(image_CHW, 1) != gap(image_CHW, 2)


def test_the_posterior_gap_is_counted_and_the_same_in_every_row(
    linear: Any, grid: Grid, sample: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "ssim_map", lambda a_BCHW, _: torch.ones_like(a_BCHW[:, 0]))
    monkeypatch.setattr(changes, "ssim", lambda a_BCHW, _: torch.ones(len(a_BCHW)))
    origin = sample(3)
    pixels_CHW = quantised(origin.image_CHW)
    region = make_region("all", torch.ones(4, 4))
    edits = tuple(Edit(region, Renoised(300, 0.5, n), pixels_CHW) for n in range(2))
    gap = PosteriorGap(linear, grid, (3,))
    (found,) = evaluated([Edited(origin, pixels_CHW, 7.0, edits)], gap=gap)
    assert found.network_evaluations == 8.0
    assert {score.metrics["posterior_gap"] for score in found.scores} == {
        gap(origin.image_CHW, origin.seed)
    }
