"""Sums over random splits of shards against one pass, and the bootstrap against theory."""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
import pytest
import scipy.stats

from lib.metrics.bootstrap import REPLICATES, image_seeds, interval, weights
from lib.metrics.medians import Values
from lib.metrics.sums import Moments, add_into, moments

SHARDS = {f"faces-{n}": list(range(3 + 4 * n)) for n in range(6)}


def rows(seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Shard -> (index of the image, value) of its rows, four of each image."""
    generator = np.random.default_rng(seed)
    return {
        shard: (np.repeat(indices, 4), generator.lognormal(size=4 * len(indices)))
        for shard, indices in SHARDS.items()
    }


def of_part(shard: str, index_N: np.ndarray, value_N: np.ndarray) -> Moments:
    images, image_N = np.unique(index_N, return_inverse=True)
    return moments(value_N, image_N, weights(image_seeds(shard, images.tolist())))


def test_any_split_over_shards_and_images_adds_up_to_one_pass() -> None:
    data = rows()
    seeds = np.concatenate([image_seeds(s, SHARDS[s]) for s in SHARDS])
    first = np.cumsum([0, *map(len, SHARDS.values())])
    image_N = np.concatenate([data[s][0] + start for s, start in zip(SHARDS, first, strict=False)])
    value_N = np.concatenate([data[s][1] for s in SHARDS])
    whole = moments(value_N, image_N, weights(seeds))
    generator = np.random.default_rng(1)
    for _ in range(5):
        parts = []
        for shard, (index_N, values) in data.items():
            cut = generator.integers(0, 3, SHARDS[shard][-1] + 1)  # images of a shard in 3 workers
            for part in range(3):
                chosen = cut[index_N] == part
                parts.append(of_part(shard, index_N[chosen], values[chosen]))
        generator.shuffle(parts)  # type: ignore[arg-type]
        merged = functools.reduce(operator.add, parts)
        assert merged.count == whole.count == len(value_N)
        for name in ("total", "squares", "mean", "deviation"):
            assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-12)
        np.testing.assert_allclose(merged.total_R, whole.total_R, rtol=1e-9)
        np.testing.assert_allclose(merged.weight_R, whole.weight_R, rtol=1e-9)
        one, other = merged.figure(), whole.figure()
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-9)
    assert whole.mean == pytest.approx(value_N.mean())
    assert whole.deviation == pytest.approx(value_N.std(ddof=1))


def test_weights_are_poisson_and_independent_between_images_and_replicates() -> None:
    drawn_IR = weights(image_seeds("s", range(2000)))
    assert drawn_IR.shape == (2000, REPLICATES)
    counts = np.bincount(drawn_IR.ravel(), minlength=8)[:8] / drawn_IR.size
    np.testing.assert_allclose(counts, scipy.stats.poisson.pmf(range(8), 1), atol=2e-3)
    images = np.corrcoef(drawn_IR[:50].astype(float))
    replicates = np.corrcoef(drawn_IR[:, :50].T.astype(float))
    assert np.abs(images - np.eye(50)).max() < 0.25
    assert np.abs(replicates - np.eye(50)).max() < 0.12
    np.testing.assert_array_equal(weights(image_seeds("s", [7]), 100, 5), drawn_IR[7:8, 100:105])
    assert (weights(image_seeds("t", range(50))) != drawn_IR[:50]).mean() > 0.5


def test_the_interval_of_a_mean_has_the_width_that_theory_says() -> None:
    value_N = np.random.default_rng(2).normal(5, 2, 400)
    found = moments(value_N, np.arange(400), weights(image_seeds("s", range(400)))).figure()
    wanted = 1.96 * value_N.std(ddof=1) / math.sqrt(400)
    assert found.high - found.value == pytest.approx(wanted, rel=0.2)
    assert found.value - found.low == pytest.approx(wanted, rel=0.2)


def test_edits_of_an_image_are_resampled_together() -> None:
    # Ten equal rows of each image tell no more than one: the interval must not shrink.
    value_I = np.random.default_rng(3).normal(size=50)
    drawn = weights(image_seeds("s", range(50)))
    single = moments(value_I, np.arange(50), drawn).figure()
    tenfold = moments(np.repeat(value_I, 10), np.repeat(np.arange(50), 10), drawn).figure()
    assert (tenfold.low, tenfold.high) == pytest.approx((single.low, single.high))
    assert (single.count, tenfold.count) == (50, 500)


def test_what_is_not_a_number_does_not_count() -> None:
    drawn = weights(image_seeds("s", range(3)))
    found = moments([1.0, math.nan, math.inf], np.arange(3), drawn)
    assert (found.count, found.mean) == (1, 1.0)
    assert math.isnan(moments([], np.empty(0, np.intp), drawn).mean)
    assert all(map(math.isnan, interval(np.array([math.nan, math.nan, 1.0]))))


def test_sums_by_key_are_added_where_both_have_it() -> None:
    drawn = weights(image_seeds("s", range(2)))
    one = moments([1.0], np.array([0]), drawn)
    sums = {"a": one}
    add_into(sums, {"a": one, "b": one})
    assert (sums["a"].count, sums["b"].count) == (2, 1)


def test_a_median_is_numpys_and_does_not_depend_on_the_order_of_shards() -> None:
    data = rows(4)
    found = []
    for order in (sorted(data), sorted(data, reverse=True)):
        values = Values()
        for shard in order:
            index_N, value_N = data[shard]
            seeds_N = image_seeds(shard, SHARDS[shard])[index_N]
            values.add(value_N.astype(np.float32), seeds_N)
        found.append(values.median())
    assert found[0].value == found[1].value
    assert (found[0].low, found[0].high) == (found[1].low, found[1].high)
    value_N = np.concatenate([value for _, value in data.values()]).astype(np.float32)
    assert found[0].value == pytest.approx(float(np.median(value_N)))
    assert found[0].low < found[0].value < found[0].high
    assert found[0].count == len(value_N)


def test_the_interval_of_a_median_is_near_the_ordinary_bootstrap() -> None:
    generator = np.random.default_rng(5)
    value_N = generator.lognormal(size=300).astype(np.float32)
    values = Values()
    values.add(value_N, image_seeds("s", range(300)))
    drawn = np.median(value_N[generator.integers(0, 300, (2000, 300))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    found = values.median()
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.1)


def test_a_median_ignores_nan_and_is_nan_without_values() -> None:
    values = Values()
    assert values.median().count == 0
    values.add(np.array([np.nan], np.float32), image_seeds("s", [0]))
    assert math.isnan(values.median().value)
