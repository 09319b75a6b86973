"""What the benchmark of learned regions counts, on masks whose overlap is known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score

from benchmarks import region_overlap
from benchmarks.embedded import held_out
from benchmarks.region_overlap import NAMES, PARTS, named, overlap, parts
from lib.demo.faces import sample_factors
from lib.masks.cluster_files import RegionModel, RegionStudy
from lib.records import Sample

FACES, SEED = 4, 3
STUDY = RegionStudy("m", (120,), (1,), (2,), (1.0,), 7, 16)
MODEL = RegionModel(STUDY, 4, 0.1, *(np.zeros(shape, np.float32) for shape in ((7, 2), 1, 7)))


class Known:
    """Masks that are the true parts moved down by some pixels."""

    def __init__(self, regions: dict[str, tuple[int, ...]], moved: int, seed: int) -> None:
        truth_BHW = parts(sample_factors(FACES, seed))
        self._numbers_BHW = truth_BHW.roll(moved, 1)
        self._regions = regions

    def numbers(self, image_BCHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._numbers_BHW, torch.ones(len(image_BCHW), dtype=torch.bool)

    def __call__(self, samples: Sequence[Sample]) -> list[dict[str, torch.Tensor]]:
        return [
            {n: torch.isin(numbers_HW, torch.tensor(k)).float() for n, k in self._regions.items()}
            for numbers_HW in self._numbers_BHW
        ]


@pytest.mark.parametrize("moved", [0, 3])
def test_overlap_is_the_jaccard_index_of_every_face(
    moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        region_overlap, "provider", lambda _model, regions: Known(regions, moved, SEED)
    )
    names = {name: (number,) for number, name in enumerate(NAMES)}
    samples, _ = held_out(FACES, SEED)
    found = overlap(MODEL, names, samples, SEED)
    truth_BHW = parts(sample_factors(FACES, SEED))
    for number, name in enumerate(PARTS):
        true, ours = truth_BHW == number, truth_BHW.roll(moved, 1) == number
        scores = [jaccard_score(t.flatten(), o.flatten()) for t, o in zip(true, ours, strict=True)]
        assert found.mean[name] == pytest.approx(np.mean(scores), abs=1e-6)
        assert found.worst[name] == pytest.approx(min(scores), abs=1e-6)
    assert (found.mean["skin"] == 1) == (moved == 0)


def test_clusters_are_named_by_the_part_that_they_mostly_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(region_overlap, "provider", lambda _model, regions: Known(regions, 1, SEED))
    found = named(MODEL, faces=FACES, seed=SEED)
    # Brows are so thin that a row's shift may leave most of a cluster beside them.
    assert {name: found[name] for name in PARTS if name != "skin"} == {
        "eyes": (0,),
        "mouth": (1,),
        "hair": (2,),
        "background": (4,),
    }
    assert sorted(k for clusters in found.values() for k in clusters) == list(range(len(NAMES)))
