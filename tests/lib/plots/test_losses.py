"""The curve of a loss: its running mean, and that long ones stay small."""

from __future__ import annotations

import numpy as np

from lib.plots.losses import loss_curve, running_mean


def test_the_running_mean_is_that_of_the_last_values() -> None:
    values = np.random.default_rng(0).normal(size=57)
    expected = [values[max(0, n - 4) : n + 1].mean() for n in range(57)]
    np.testing.assert_allclose(running_mean(values, 5), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(running_mean(values[:1], 1), values[:1])


def test_a_long_training_has_a_small_file_and_the_same_every_time() -> None:
    values = np.random.default_rng(1).uniform(1, 2, 100_000)
    drawn = loss_curve(values, "light", measured="loss: paired")
    assert len(drawn) < 200_000
    assert drawn == loss_curve(values, "light", measured="loss: paired")
    assert drawn != loss_curve(values, "dark", measured="loss: paired")
    assert b"loss: paired" in drawn
