"""The evaluate stage: every edit keeps its place and its own numbers, at any batch size."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lib.metrics.changes import edit_changes, fidelity
from lib.metrics.columns import EDIT, FIXED
from lib.pixels import as_floats, quantised
from lib.records import Edit, Edited, Evaluated, Failure, Renoised, Sample
from lib.regions import make_region
from tasks.evaluate import Evaluator

SIDE = 16
EDITS = 5


def edited_sample(sample: Callable[..., Sample], index: int) -> Edited:
    """A sample with five edits of random pixels and masks."""
    generator = torch.Generator().manual_seed(index)
    origin = sample(index, size=SIDE)

    def pixels() -> torch.Tensor:
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


def evaluated(items: list[Edited], batch_size: int = 16) -> list[Evaluated]:
    failures: list[Failure] = []
    stage = Evaluator(device=torch.device("cpu"), batch_size=batch_size)
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
