"""Fréchet and kernel distance against scipy and direct sums, and merged against one pass."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence

import numpy as np
import pytest
import scipy.linalg

from lib.metrics import kernel_distance as kernel
from lib.metrics.frechet import frechet_distance, gaussian

RNG = np.random.default_rng(0)
MIX = RNG.normal(size=(12, 12))
A_NE = RNG.normal(size=(300, 12)) @ MIX
B_NE = RNG.normal(0.3, 1.2, size=(250, 12)) @ MIX + 0.5


def scipys(a_NE: np.ndarray, b_NE: np.ndarray) -> float:
    """As pytorch-fid writes it, with the root of the product."""
    covariance_a, covariance_b = np.cov(a_NE.T), np.cov(b_NE.T)
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b)
    shift = np.square(a_NE.mean(0) - b_NE.mean(0)).sum()
    return float(shift + np.trace(covariance_a + covariance_b - 2 * np.real(root)))


def test_frechet_distance_is_that_of_scipys_matrix_root() -> None:
    found = frechet_distance(gaussian(A_NE), gaussian(B_NE))
    assert found == pytest.approx(scipys(A_NE, B_NE), rel=1e-9)
    assert frechet_distance(gaussian(A_NE), gaussian(A_NE)) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_two_normal_distributions_on_a_line_by_hand() -> None:
    # (mean 1, variance 2) and (mean 5, variance 8): 16 + (sqrt 2 - sqrt 8)^2 = 16 + 2.
    a_NE, b_NE = np.array([[0.0], [2.0]]), np.array([[3.0], [7.0]])
    assert frechet_distance(gaussian(a_NE), gaussian(b_NE)) == pytest.approx(18)


def test_frechet_distance_with_fewer_images_than_dimensions_is_finite_and_symmetric() -> None:
    a, b = gaussian(A_NE[:5]), gaussian(B_NE[:7])
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6)
    assert frechet_distance(a, b) > 0
    with pytest.raises(ValueError, match="two embeddings"):
        frechet_distance(gaussian(A_NE[:1]), b)


def test_gaussians_merged_over_any_split_are_those_of_one_pass() -> None:
    generator = np.random.default_rng(1)
    for _ in range(3):
        part_N = generator.integers(0, 5, len(A_NE))
        parts = [gaussian(A_NE[part_N == part]) for part in range(5)]
        merged = functools.reduce(operator.add, parts)
        np.testing.assert_allclose(merged.covariance, np.cov(A_NE.T), rtol=1e-9, atol=1e-12)
        assert frechet_distance(merged, gaussian(B_NE)) == pytest.approx(
            frechet_distance(gaussian(A_NE), gaussian(B_NE)), rel=1e-9
        )


def drawn(features_NE: np.ndarray, images: Sequence[str], edits: Sequence[int]) -> kernel.Sample:
    return kernel.sample(images, edits, features_NE.astype(np.float32))


def alone(features_NE: np.ndarray, side: str) -> kernel.Sample:
    """Embeddings of as many images."""
    count = len(features_NE)
    return drawn(features_NE, [f"{side} {n}" for n in range(count)], [0] * count)


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    x, y = A_NE[:6].astype(np.float32), B_NE[:5].astype(np.float32)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(float) @ b.astype(float) / 12 + 1) ** 3)

    same_x = np.mean([k(x[i], x[j]) for i in range(6) for j in range(6) if i != j])
    same_y = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    found = kernel.squared_mmd(alone(x, "a"), alone(y, "b"))
    assert found == pytest.approx(same_x + same_y - 2 * between, rel=1e-9)


def test_an_edit_is_not_compared_with_its_own_original_nor_with_another_edit_of_it() -> None:
    x, y = A_NE[:4].astype(np.float32), B_NE[:8].astype(np.float32)
    image_x, image_y = [0, 1, 2, 3], [0, 0, 1, 1, 2, 2, 3, 3]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a.astype(float) @ b.astype(float) / 12 + 1) ** 3)

    def mean(a: np.ndarray, i: list[int], b: np.ndarray, j: list[int]) -> float:
        pairs = itertools.product(zip(a, i, strict=True), zip(b, j, strict=True))
        return float(np.mean([k(v, w) for (v, p), (w, q) in pairs if p != q]))

    a = drawn(x, list(map(str, image_x)), [0] * 4)
    b = drawn(y, list(map(str, image_y)), [1, 2] * 4)
    expected = mean(x, image_x, x, image_x) + mean(y, image_y, y, image_y)
    expected -= 2 * mean(x, image_x, y, image_y)
    assert kernel.squared_mmd(a, b) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_unchanged_images_to_themselves_is_zero() -> None:
    # Paired sets: with an image's own copy among the pairs it would be far below zero.
    images = list(map(str, range(300)))
    before, after = drawn(A_NE, images, [0] * 300), drawn(A_NE, images, [1] * 300)
    assert kernel.squared_mmd(before, after) == pytest.approx(0, abs=1e-9)


def test_kernel_distance_of_one_distribution_is_near_zero_and_inside_its_interval() -> None:
    same = np.random.default_rng(2).normal(size=(2, 400, 8))
    a, b, shifted = alone(same[0], "a"), alone(same[1], "b"), alone(same[1] + 1, "b")
    found = kernel.kernel_distance(a, b)
    assert found.low < 0 < found.high
    assert kernel.kernel_distance(a, shifted).low > found.high


def test_the_sample_is_the_same_however_the_set_is_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "SAMPLE", 40)
    images = [f"shard {n % 7} {n // 2}" for n in range(300)]
    edits = [n % 2 for n in range(300)]

    def of(chosen_N: np.ndarray) -> kernel.Sample:
        places = np.flatnonzero(chosen_N)
        return drawn(A_NE[places], [images[n] for n in places], [edits[n] for n in places])

    whole = of(np.ones(300, bool))
    assert len(whole.hash_N) == 40
    generator = np.random.default_rng(3)
    for _ in range(3):
        part_N = generator.integers(0, 4, 300)
        merged = functools.reduce(operator.add, [of(part_N == p) for p in generator.permutation(4)])
        np.testing.assert_array_equal(merged.features_NE, whole.features_NE)
        np.testing.assert_array_equal(merged.image_N, whole.image_N)
