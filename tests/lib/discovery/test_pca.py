"""Streaming principal components against scikit-learn and against one pass over all rows."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lib.discovery import pca
from lib.discovery.pca import Moments, components, merged, moments


def samples(count: int = 60, width: int = 40, seed: int = 0) -> torch.Tensor:
    """Falling variances along random axes around a mean that is not small."""
    generator = torch.Generator().manual_seed(seed)
    axes_DD = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    coordinates_ND = torch.randn(count, width, generator=generator, dtype=torch.float64)
    std_D = 3 * torch.exp(-torch.arange(width, dtype=torch.float64) / 6)
    return coordinates_ND * std_D @ axes_DD + 10 * axes_DD[0]


def scatter(m: Moments) -> torch.Tensor:
    return m.factor_RD.T @ m.factor_RD


def test_components_and_deviations_are_those_of_scikit_learn() -> None:
    h_ND = samples().float()
    V_KD, std_K = components(moments(h_ND, 60), 8)
    oracle = PCA(n_components=8, svd_solver="full").fit(h_ND.double().numpy())
    cosine_K = np.abs((V_KD.numpy() * oracle.components_).sum(1))
    np.testing.assert_allclose(cosine_K, 1, atol=1e-10)
    np.testing.assert_allclose(std_K.numpy() ** 2, oracle.explained_variance_, rtol=1e-10)
    torch.testing.assert_close(V_KD @ V_KD.T, torch.eye(8).double(), atol=1e-12, rtol=0)
    assert (V_KD[range(8), V_KD.abs().argmax(1)] > 0).all()


@pytest.mark.parametrize("sizes", [[60], [30, 30], [1, 58, 1], [7] * 8 + [4], [0, 59, 0, 1]])
def test_merged_parts_equal_one_pass_for_any_split(sizes: list[int]) -> None:
    h_ND = samples()
    whole = moments(h_ND, 40)
    union = merged([moments(part, 40) for part in h_ND.split(sizes)], 40)
    assert union.count == 60
    assert union.discarded == whole.discarded == 0
    torch.testing.assert_close(union.mean_D, whole.mean_D, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(scatter(union), scatter(whole), rtol=0, atol=1e-10)
    V_KD, std_K = components(union, 6)
    expected_KD, expected_K = components(whole, 6)
    torch.testing.assert_close(V_KD, expected_KD, rtol=0, atol=1e-10)
    torch.testing.assert_close(std_K, expected_K, rtol=1e-10, atol=0)


def test_moments_are_those_that_numpy_computes() -> None:
    h_ND = samples(9, 5)
    m = moments(h_ND, 5)
    np.testing.assert_allclose(m.mean_D.numpy(), h_ND.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(scatter(m).numpy(), 8 * np.cov(h_ND.numpy().T), atol=1e-11)


def test_what_the_cut_loses_is_counted_and_bounds_the_error() -> None:
    h_ND = samples()
    exact = moments(h_ND, 40)
    cut = merged([moments(part, 12) for part in h_ND.split(15)], 12)
    assert len(cut.factor_RD) == 12
    lost = float(scatter(exact).trace() - scatter(cut).trace())
    assert cut.discarded == pytest.approx(lost, rel=1e-9)
    worst = float(torch.linalg.matrix_norm(scatter(exact) - scatter(cut), 2))
    assert 0 < worst <= cut.discarded
    torch.testing.assert_close(components(cut, 3)[1], components(exact, 3)[1], rtol=1e-3, atol=0)


def test_the_joint_components_of_several_steps_are_those_of_the_flattened_rows() -> None:
    h_NSD = samples(30, 12).view(30, 3, 4)
    V_KD, _ = components(moments(h_NSD.flatten(1), 12), 2)
    oracle = PCA(n_components=2).fit(h_NSD.numpy().reshape(30, 12))
    np.testing.assert_allclose(np.abs((V_KD.numpy() * oracle.components_).sum(1)), 1, atol=1e-10)


def test_fewer_varying_dimensions_than_asked_for_give_fewer_components() -> None:
    h_ND = samples(5)  # five samples vary in four dimensions
    assert len(components(moments(h_ND, 40), 10)[1]) == 4
    assert len(components(merged([moments(row[None], 40) for row in h_ND], 40), 10)[1]) == 4


def test_a_mean_far_larger_than_the_variation_costs_no_accuracy() -> None:
    h_ND = samples()
    far = merged([moments(part + 1e4, 40) for part in h_ND.split(20)], 40)
    near = moments(h_ND, 40)
    torch.testing.assert_close(components(far, 4)[0], components(near, 4)[0], rtol=0, atol=1e-9)


def test_storage_gives_the_same_bits_back() -> None:
    m = moments(samples(), 7)
    back = pca.from_arrays(pca.to_arrays(m))
    assert (back.count, back.discarded) == (m.count, m.discarded)
    assert torch.equal(back.mean_D, m.mean_D)
    assert torch.equal(back.factor_RD, m.factor_RD)
    assert all(a.ndim == 1 or name == "factor" for name, a in pca.to_arrays(m).items())


def test_too_few_equal_or_broken_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        components(moments(samples(1), 3), 1)
    with pytest.raises(ValueError, match="all 3 samples have the same h"):
        components(moments(samples(1).expand(3, -1), 3), 1)
    with pytest.raises(ValueError, match="NaN"):
        moments(torch.full((2, 3), float("nan")), 3)
    with pytest.raises(ValueError, match="none"):
        merged([], 3)
    with pytest.raises(ValueError, match=r"widths \[3, 4\]"):
        merged([moments(torch.ones(2, 4), 2), moments(torch.ones(2, 3), 2)], 3)
