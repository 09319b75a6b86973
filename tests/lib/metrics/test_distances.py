"""Fréchet and kernel distance against scipy and direct sums, and merged against one pass."""

from __future__ import annotations

import functools
import operator

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


def test_kernel_distance_is_the_sum_over_pairs() -> None:
    x, y = A_NE[:6], B_NE[:5]

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 12 + 1) ** 3)

    same_x = np.mean([k(x[i], x[j]) for i in range(6) for j in range(6) if i != j])
    same_y = np.mean([k(y[i], y[j]) for i in range(5) for j in range(5) if i != j])
    between = np.mean([k(a, b) for a in x for b in y])
    assert kernel.squared_mmd(x, y) == pytest.approx(same_x + same_y - 2 * between, rel=1e-12)


def test_kernel_distance_of_one_distribution_is_near_zero_and_inside_its_interval() -> None:
    same = np.random.default_rng(2).normal(size=(2, 400, 8)).astype(np.float32)
    names = [[f"{side}-{n}" for n in range(400)] for side in "ab"]
    a, b = (kernel.sample(name, x) for name, x in zip(names, same, strict=True))
    found = kernel.kernel_distance(a, b)
    assert found.low < 0 < found.high
    shifted = kernel.sample(names[1], same[1] + 1)
    assert kernel.kernel_distance(a, shifted).low > found.high


def test_the_sample_is_the_same_however_the_set_is_divided(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kernel, "SAMPLE", 40)
    names = [f"shard {n % 7} {n}" for n in range(300)]
    features = A_NE.astype(np.float32)
    whole = kernel.sample(names, features)
    assert len(whole.hash_N) == 40
    generator = np.random.default_rng(3)
    for _ in range(3):
        part_N = generator.integers(0, 4, 300)
        parts = [
            kernel.sample([names[n] for n in np.flatnonzero(part_N == p)], features[part_N == p])
            for p in generator.permutation(4)
        ]
        merged = functools.reduce(operator.add, parts)
        np.testing.assert_array_equal(merged.features_NE, whole.features_NE)
