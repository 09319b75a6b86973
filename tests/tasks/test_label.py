"""Labels from side files and from a classifier; what is missing is NaN and never a number."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lib.records import Inverted, Labelled, Observed, Sample
from lib.sampling.sampler import plain_latent
from tasks.label import ClassSource, FieldSource, Labeller


class Brightness:
    """Two classes: the mean of the image, and minus it."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def scores(self, image_BCHW: Tensor) -> Tensor:
        self.batches.append(len(image_BCHW))
        mean_B = image_BCHW.mean((1, 2, 3))
        return torch.stack([mean_B, -mean_B], dim=1)


def observed(made: Sample) -> Observed:
    x_LYX = torch.zeros(3, 4, 4)
    return Observed(Inverted(made, plain_latent(x_LYX), {}), torch.zeros(1, 2, 2, 2))


def labelled(labeller: Labeller, *samples: Sample) -> list[Labelled]:
    def refuse(failure: object) -> None:
        raise AssertionError(failure)

    return list(labeller(map(observed, samples), refuse))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'{"age": 31}', 31.0),
        (b'{"age": -0.5}', -0.5),
        (b'{"age": true}', 1.0),
        (b'{"age": false}', 0.0),
        (b'{"age": "31"}', None),
        (b'{"age": null}', None),
        (b'{"age": [1]}', None),
        (b'{"age": NaN}', None),
        (b'{"age": 1e999}', None),
        (b'{"age": 1' + b"0" * 400 + b"}", None),
        (b'{"years": 31}', None),
        (b"[31]", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 100_000, None),
        (None, None),
    ],
)
def test_a_field_is_a_number_or_missing(
    sample: Callable[..., Sample], text: bytes | None, expected: float | None
) -> None:
    labeller = Labeller({"old": FieldSource("age")}, classifier=None, batch_size=2)
    (found,) = labelled(labeller, sample(0, files={} if text is None else {"json": text}))
    if expected is None:
        assert math.isnan(found.scores["old"])
    else:
        assert found.scores == {"old": expected}


def test_classes_are_columns_of_the_classifier_in_batches_cut_by_position(
    sample: Callable[..., Sample],
) -> None:
    classifier = Brightness()
    labels = {"dark": ClassSource(1), "bright": ClassSource(0), "age": FieldSource("age")}
    labeller = Labeller(labels, classifier=classifier, batch_size=3)
    samples = [sample(index) for index in (0, 2, 3, 7)]
    found = labelled(labeller, *samples)
    assert classifier.batches == [2, 1, 1]
    for made, item in zip(samples, found, strict=True):
        assert item.scores["bright"] == pytest.approx(float(made.image_CHW.mean()), abs=1e-6)
        assert item.scores["dark"] == -item.scores["bright"]
        assert math.isnan(item.scores["age"])


def test_without_labels_every_image_passes(sample: Callable[..., Sample]) -> None:
    labeller = Labeller({}, classifier=None, batch_size=2)
    assert [item.scores for item in labelled(labeller, sample(0), sample(1))] == [{}, {}]
