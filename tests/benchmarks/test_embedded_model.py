"""What the embedded model promises, on a few held-out faces; the benchmarks print it for more."""

from statistics import median

import pytest

from benchmarks.embedded import load_bench
from benchmarks.locality import Scene, own_face, prepare, transfer
from benchmarks.reconstruction import reconstruction_psnr


def test_refined_inversion_on_twenty_steps_reconstructs_at_38_db() -> None:
    values = reconstruction_psnr(faces=4, num_steps=20, refinements=2)
    assert sum(values) / len(values) >= 38
    assert min(values) >= 37


def test_plain_inversion_on_fifty_steps_reconstructs_at_35_db() -> None:
    values = reconstruction_psnr(faces=2, num_steps=50, refinements=0)
    assert sum(values) / len(values) >= 35


@pytest.fixture(scope="module")
def scene() -> Scene:
    return prepare(load_bench(20), 4)


@pytest.mark.timeout(600)
def test_masked_jacobian_edits_are_more_local_than_random_ones(scene: Scene) -> None:
    eyes, mouth = own_face(scene, random_seeds=(1,))
    assert median(eyes.plus) <= 0.35
    assert median(mouth.plus) <= 0.60
    for region in (eyes, mouth):
        assert median(region.plus) <= 0.6 * region.best_random


@pytest.mark.timeout(600)
def test_a_face_s_mouth_direction_does_the_same_to_other_faces(scene: Scene) -> None:
    _, mouth = transfer(scene, range(1, 4))
    assert sum(mouth.cosine) / len(mouth.cosine) >= 0.35
    assert mouth.consistency == 1.0
    assert abs(median(mouth.main_change)) > 0.1
