"""Sums of shards and the directions made of them, held against numpy and scikit-learn on all
samples at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

from lib.direction import Direction
from lib.discovery.statistics_files import StatisticsDamageError, Study, decode, encode
from lib.discovery.study import ShardSums, StudySums

SHAPE = (2, 2, 3)
TIMESTEPS = (700, 500)
SAMPLES, D = 90, 2 * 12
PCA_PARAMETERS = {"components": 3, "mode": "joint", "sketch_rank": 64}
LABEL_PARAMETERS: dict[str, Any] = {
    "labels": {"a": {}, "b": {}}, "examples": 8, "fit": "mean", "balance": None,
    "balance_threshold": 0.5,
}  # fmt: skip


def study(method: str, **changes: Any) -> Study:
    parameters = PCA_PARAMETERS if method == "pca" else LABEL_PARAMETERS
    return Study(
        method=method,
        parameters=parameters | changes,
        timesteps=TIMESTEPS,
        h_norms=(3.0, 4.0),
        h_shape=SHAPE,
        h_layer="after",
        model="m",
        vector_dtype="float32",
    )


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """h (N, D) with a few strong dimensions, a score and a class that goes with it."""
    random = np.random.default_rng(0)
    h_ND = random.standard_normal((SAMPLES, D)) * (2.0 ** -np.arange(D)) @ np.linalg.qr(
        random.standard_normal((D, D))
    )[0] + random.standard_normal(D)
    h_ND = h_ND.astype(np.float32).astype(np.float64)
    a_N = h_ND[:, 0] + 0.1 * random.standard_normal(SAMPLES)
    b_N = (a_N + random.standard_normal(SAMPLES) > a_N.mean()).astype(float)
    return h_ND, a_N, b_N


def learned(
    what: Study, cuts: Sequence[int], missing: frozenset[int] = frozenset()
) -> tuple[list[Direction], dict[str, str]]:
    """From shards that end at `cuts`."""
    h_ND, a_N, b_N = data()
    sums = StudySums()
    for number, (begin, end) in enumerate(zip([0, *cuts], [*cuts, SAMPLES], strict=True)):
        shard = ShardSums(what, f"s{number}")
        for row in range(begin, end):
            h_SCYX = torch.from_numpy(h_ND[row]).float().view(2, *SHAPE)
            a = math.nan if row in missing else float(a_N[row])
            shard.add(row - begin, h_SCYX, {"a": a, "b": float(b_N[row])})
        sums.add(shard.finish(), f"s{number}")
    return sums.directions()


def unit_steps(v_D: np.ndarray, steps: int = 2) -> np.ndarray:
    by_step = v_D.reshape(steps, -1)
    return (by_step / np.linalg.norm(by_step, axis=1, keepdims=True)).ravel()


@pytest.mark.parametrize("cuts", [[], [1], [30, 60], [40, 40, 89]])
def test_joint_components_whatever_the_shards(cuts: list[int]) -> None:
    expected = PCA(3, svd_solver="full").fit(data()[0])
    found, left_out = learned(study("pca"), cuts)
    assert not left_out
    for direction, v_D, variance in zip(
        found, expected.components_, expected.explained_variance_, strict=True
    ):
        got_D = direction.vector_SCYX.double().numpy().ravel()
        assert abs(got_D @ unit_steps(v_D)) == pytest.approx(2, abs=1e-5)
        assert direction.singular_value**2 == pytest.approx(variance, rel=1e-5)
    assert found[0].gap == pytest.approx(found[1].singular_value / found[0].singular_value)
    assert (found[0].h_norm, found[0].timesteps) == (3.0, TIMESTEPS)


def test_components_of_every_step_alone() -> None:
    found, _ = learned(study("pca", mode="per_step"), [50])
    h_NSD = data()[0].reshape(SAMPLES, 2, 12)
    assert [(d.timesteps, d.rank, d.h_norm) for d in found] == [
        ((t,), k, norm) for t, norm in ((700, 3.0), (500, 4.0)) for k in range(3)
    ]
    for step in range(2):
        expected = PCA(3, svd_solver="full").fit(h_NSD[:, step])
        for direction, v_D in zip(found[3 * step :][:3], expected.components_, strict=True):
            got_D = direction.vector_SCYX.double().numpy().ravel()
            assert abs(got_D @ v_D) == pytest.approx(1, abs=1e-5)


def test_what_is_cut_off_is_said() -> None:
    found, _ = learned(study("pca", sketch_rank=4), [30, 60])
    assert 0 < found[0].parameters["discarded_energy"] < 0.01


def test_a_label_direction_is_high_minus_low_and_counts_who_is_missing() -> None:
    h_ND, a_N, _ = data()
    missing = frozenset({int(a_N.argmax()), 5})
    found, _ = learned(study("supervised"), [20, 33], missing)
    direction = next(d for d in found if d.label == "a")
    order = [row for row in np.argsort(a_N) if row not in missing]
    difference_D = h_ND[order[-8:]].mean(0) - h_ND[order[:8]].mean(0)
    np.testing.assert_allclose(
        direction.vector_SCYX.numpy().ravel(), unit_steps(difference_D), rtol=0, atol=1e-5
    )
    assert direction.singular_value == pytest.approx(np.linalg.norm(difference_D), rel=1e-5)
    assert (direction.parameters["missing"], direction.parameters["labelled"]) == (2, 88)
    assert (direction.support, direction.sign_rule) == (16, "high_minus_low")


def test_logistic_directions_are_those_of_scikit_learn() -> None:
    h_ND, a_N, _ = data()
    found, _ = learned(study("supervised", fit="logistic"), [45])
    order = np.argsort(a_N)
    rows = np.concatenate([order[:8], order[-8:]])
    x_ND = h_ND[rows] - h_ND[rows].mean(0)
    x_ND /= np.sqrt((x_ND**2).sum(1).mean())
    model = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit(x_ND, np.arange(16) >= 8)
    direction = next(d for d in found if d.label == "a")
    np.testing.assert_allclose(
        direction.vector_SCYX.numpy().ravel(), unit_steps(model.coef_[0]), rtol=0, atol=1e-4
    )


def test_balance_takes_the_second_label_out() -> None:
    h_ND, a_N, b_N = data()
    found, _ = learned(study("supervised", balance="b"), [45])
    differences = []
    for stratum in (0.0, 1.0):
        order = [row for row in np.argsort(a_N) if b_N[row] == stratum]
        differences.append(h_ND[order[-8:]].mean(0) - h_ND[order[:8]].mean(0))
    direction = next(d for d in found if d.label == "a")
    np.testing.assert_allclose(
        direction.vector_SCYX.numpy().ravel(), unit_steps(np.mean(differences, 0)), atol=1e-5
    )


@pytest.mark.parametrize("cuts", [[], [89]])
def test_nothing_to_learn_from_is_said(cuts: list[int]) -> None:
    everyone = frozenset(range(SAMPLES))
    found, left_out = learned(study("supervised"), cuts, everyone)
    assert [d.label for d in found] == ["b"]
    assert list(left_out) == ["a"]
    assert "there are 0" in left_out["a"]


def test_shards_without_any_sample_change_nothing() -> None:
    for what in (study("pca"), study("supervised")):
        whole, _ = learned(what, [])
        cut, _ = learned(what, [0, 0, SAMPLES])
        assert [d.id for d in whole] == [d.id for d in cut]
    sums = StudySums()
    sums.add(ShardSums(study("pca"), "s").finish(), "s")
    assert sums.directions() == ([], {"pca": "principal components need at least 2 samples, got 0"})


def test_files_of_another_study_or_none_at_all_are_refused() -> None:
    sums = StudySums()
    with pytest.raises(ValueError, match="at least one statistics file"):
        _ = sums.study
    sums.add(ShardSums(study("pca"), "s").finish(), "s")
    other = ShardSums(replace(study("pca"), model="n"), "s").finish()
    with pytest.raises(StatisticsDamageError, match="u: expected the study of the other shards"):
        sums.add(other, "u")
    for data in (b"", b"words", other[:-3], encode(study("pca"), {})[:20]):
        with pytest.raises(StatisticsDamageError, match="v: expected a whole statistics file"):
            sums.add(data, "v")


def test_a_file_gives_back_what_was_put_in_whatever_the_order() -> None:
    arrays = {"x": np.arange(3.0), "y": np.array([[1, 2]], dtype=np.int64)}
    data = encode(study("pca"), {"b": arrays, "a": {"x": arrays["x"][:1]}})
    swapped = {"b": dict(reversed(arrays.items())), "a": {"x": arrays["x"][:1]}}
    assert encode(study("pca"), swapped) == data
    what, parts = decode(data, "f")
    assert what == study("pca")
    assert set(parts) == {"a", "b"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(parts["b"][name], array)
