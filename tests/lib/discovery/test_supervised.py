"""Supervised directions against numpy, scikit-learn and a planted difference."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lib.discovery.extremes import Extremes, contrasts, extremes
from lib.discovery.supervised import logistic, mean_difference


def planted(count: int = 400, width: int = 30, seed: int = 0) -> dict[str, torch.Tensor]:
    """h in which a score moves axis 0, a second label that follows the score moves axis 1, and
    axis 2 is loud noise; the rest is quiet noise.
    """
    generator = torch.Generator().manual_seed(seed)
    score_N = torch.rand(count, generator=generator)
    second_N = (torch.rand(count, generator=generator) < 0.1 + 0.8 * score_N).float()
    h_ND = 0.1 * torch.randn(count, width, generator=generator)
    h_ND[:, 2] *= 30
    h_ND[:, 0] += score_N
    h_ND[:, 1] += 2 * second_N
    return {"h": h_ND + 5, "score": score_N, "second": second_N}


def kept(n: int = 60, balanced: bool = False) -> Extremes:
    d = planted()
    ids = [f"s/{i}" for i in range(len(d["h"]))]
    second_N = d["second"] if balanced else None
    return extremes(d["h"], d["score"], ids, n, balance_N=second_N)


def test_the_mean_difference_is_that_of_the_top_and_bottom_n() -> None:
    d = planted()
    order = np.argsort(d["score"].numpy())
    h_ND = d["h"].double().numpy()
    expected_D = h_ND[order[-60:]].mean(0) - h_ND[order[:60]].mean(0)
    np.testing.assert_allclose(mean_difference(kept()).numpy(), expected_D, rtol=0, atol=1e-12)


def test_balancing_removes_what_only_the_second_label_explains() -> None:
    plain_D, balanced_D = mean_difference(kept()), mean_difference(kept(balanced=True))
    assert float(plain_D[1]) > 1.2  # 2 x the difference of the second label's rate
    assert abs(float(balanced_D[1])) < 0.1
    assert float(balanced_D[0]) > 0.5


def test_balanced_strata_count_the_same_however_many_samples_they_have() -> None:
    """Stratum below: difference (1, 0) from 3 samples a side; above: (0, 1) from 2 a side."""
    h_ND = torch.tensor([[0.0, 0.0]] * 3 + [[1.0, 0.0]] * 3 + [[5.0, 5.0]] * 2 + [[5.0, 6.0]] * 2)
    score_N = torch.tensor([0.0, 0, 0, 1, 1, 1, 0, 0, 1, 1])
    balance_N = torch.tensor([0.0] * 6 + [1.0] * 4)
    ids = [str(i) for i in range(10)]
    e = extremes(h_ND, score_N, ids, 5, balance_N=balance_N)
    torch.testing.assert_close(mean_difference(e), torch.tensor([0.5, 0.5]).double())


def oracle(e: Extremes, l2: float) -> np.ndarray:
    """scikit-learn on features centred and divided by their one scale."""
    pairs = contrasts(e)
    sides = [(side, target) for pair in pairs for target, side in enumerate(pair)]
    total = sum(len(side.ids) for side, _ in sides)
    x = np.concatenate([side.h_KD.double().numpy() for side, _ in sides])
    y = np.concatenate([[target] * len(side.ids) for side, target in sides])
    w = np.concatenate(
        [np.full(len(side.ids), total / len(sides) / len(side.ids)) for side, _ in sides]
    )
    x = x - x.mean(0)
    scale = np.sqrt((x**2).sum(1).mean())
    model = LogisticRegression(C=1 / l2, tol=1e-12, max_iter=10_000)
    return model.fit(x / scale, y, sample_weight=w).coef_[0] / scale


@pytest.mark.parametrize("l2", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_logistic_direction_is_that_of_scikit_learn(l2: float, balanced: bool) -> None:
    e = kept(balanced=balanced)
    expected_D = oracle(e, l2)
    error_D = logistic(e, l2).numpy() - expected_D
    assert np.linalg.norm(error_D) < 2e-5 * np.linalg.norm(expected_D)


def test_unequal_sides_weigh_the_same_in_the_logistic_fit() -> None:
    d = planted()
    rare_N = (d["score"] > 0.95).float()
    e = extremes(d["h"], rare_N, [str(i) for i in range(400)], 100)
    assert len({len(side.ids) for side in contrasts(e)[0]}) == 2
    expected_D = oracle(e, 0.1)
    error_D = logistic(e, 0.1).numpy() - expected_D
    assert np.linalg.norm(error_D) < 2e-5 * np.linalg.norm(expected_D)


def test_strong_regularisation_gives_the_mean_difference() -> None:
    fitted_D, mean_D = logistic(kept(), 1e6), mean_difference(kept())
    cosine = torch.nn.functional.cosine_similarity(fitted_D, mean_D, dim=0)
    assert float(cosine) > 1 - 1e-8


def test_the_logistic_fit_ignores_loud_noise_that_the_mean_difference_picks_up() -> None:
    """Few samples a side: axis 2 varies by 3, so its mean difference is far from 0."""
    fitted_D, mean_D = logistic(kept(8), 1e-3), mean_difference(kept(8))
    assert abs(float(fitted_D[2] / fitted_D[0])) < 0.3 * abs(float(mean_D[2] / mean_D[0]))


@pytest.mark.parametrize("width", [3, 30])
def test_even_a_separable_label_with_hardly_any_regularisation_is_fitted(width: int) -> None:
    d = planted()
    h_ND = 3 * d["h"][:, :width]
    h_ND[:, 0] += 20 * d["score"]
    e = extremes(h_ND, d["score"], [str(i) for i in range(400)], 100)
    ((low, high),) = contrasts(e)
    fitted_D = logistic(e, 1e-8)
    assert float((low.h_KD.double() @ fitted_D).max()) < float(
        (high.h_KD.double() @ fitted_D).min()
    )


def test_wide_h_is_fitted_in_blocks_to_the_same_direction() -> None:
    d = planted(40)
    wide_ND = torch.cat([d["h"], torch.zeros(40, 70_000), d["h"]], dim=1)
    ids = [str(i) for i in range(40)]
    twice_D = logistic(extremes(wide_ND, d["score"], ids, 10), 0.1)
    torch.testing.assert_close(twice_D[:30], twice_D[-30:], rtol=1e-9, atol=1e-12)
    assert float(twice_D[30:-30].abs().max()) == 0


def test_a_fit_that_means_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="l2 must be positive, got 0"):
        logistic(kept(), 0.0)
    score_N = torch.tensor([0.0, 0, 1, 1])
    equal = extremes(torch.ones(4, 3), score_N, list("abcd"), 2)
    with pytest.raises(ValueError, match="same h"):
        logistic(equal, 1.0)
