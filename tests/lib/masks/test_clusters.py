"""Clusters that are planted are found, however the points are cut into shards."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from torch.nn.functional import interpolate

from lib.masks.clusters import (
    Clusters,
    Groups,
    Points,
    clustered,
    distances,
    from_arrays,
    gathered,
    merged,
    reduced,
    sampled,
    to_arrays,
)

GROUPS = Groups((6, 3), (1.0, 0.5))
PLANTED = 7


def planted(count: int = 3000, noise: float = 0.15) -> tuple[torch.Tensor, np.ndarray]:
    """Points around 7 centres of very different sizes; the second group is in other units."""
    random = np.random.default_rng(0)
    centres_KD = random.standard_normal((PLANTED, 9))
    share_K = np.array([0.4, 0.2, 0.15, 0.1, 0.08, 0.05, 0.02])
    label_N = random.choice(PLANTED, count, p=share_K)
    points_ND = centres_KD[label_N] + noise * random.standard_normal((count, 9))
    return torch.from_numpy(points_ND * np.array([1] * 6 + [40] * 3)), label_N


def in_shards(points_ND: torch.Tensor, cuts: list[int], coreset: int = 64) -> Points:
    parts = points_ND.tensor_split(cuts)
    return merged([gathered(part, GROUPS, coreset, images=1) for part in parts])


def assigned(points_ND: torch.Tensor, found: Clusters) -> np.ndarray:
    wide_D = found.scale_G.repeat_interleave(torch.tensor(GROUPS.sizes)).numpy()
    return cdist(points_ND.numpy() * wide_D, found.centres_KD.numpy() * wide_D).argmin(1)


@pytest.mark.parametrize("cuts", [[], [1500], [100, 700, 2900], list(range(300, 3000, 300))])
def test_planted_clusters_are_found_however_the_points_are_cut(cuts: list[int]) -> None:
    points_ND, label_N = planted()
    found = clustered(in_shards(points_ND, cuts), GROUPS, PLANTED)
    assert adjusted_rand_score(label_N, assigned(points_ND, found)) > 0.99
    assert found.share_K.tolist() == sorted(found.share_K.tolist(), reverse=True)
    shares = np.sort(np.bincount(label_N) / len(label_N))[::-1]
    np.testing.assert_allclose(found.share_K.numpy(), shares, atol=0.01)


def test_sums_are_those_of_one_pass_whatever_the_cuts_and_the_coreset() -> None:
    points_ND, _ = planted()
    for cuts in ([], [1000, 2000], [1, 2, 3]):
        whole = in_shards(points_ND, cuts)
        assert whole.count == len(points_ND)
        np.testing.assert_allclose(whole.sum_D, points_ND.sum(0), rtol=1e-12)
        np.testing.assert_allclose(whole.square_D, (points_ND**2).sum(0), rtol=1e-12)
        stood_for_D = (whole.weight_M[:, None] * whole.centres_MD).sum(0)
        np.testing.assert_allclose(stood_for_D, whole.sum_D, rtol=1e-9, atol=1e-8)


def test_a_coreset_clusters_nearly_as_well_as_all_points() -> None:
    points_ND, _ = planted(noise=0.8)  # nothing is clearly separated
    x_ND = points_ND.numpy() * np.array([1] * 6 + [1 / 40] * 3)
    wide_D = np.repeat([w / np.sqrt(x_ND[:, a:b].var(0).sum())
                        for w, a, b in ((1.0, 0, 6), (0.5, 6, 9))], GROUPS.sizes)  # fmt: skip
    exact = KMeans(PLANTED, n_init=10, random_state=0).fit(x_ND * wide_D).inertia_
    found = clustered(in_shards(points_ND, [1000, 2000], 128), GROUPS, PLANTED)
    scale_D = found.scale_G.repeat_interleave(torch.tensor(GROUPS.sizes)).numpy()
    away_NK = cdist(points_ND.numpy() * scale_D, found.centres_KD.numpy() * scale_D, "sqeuclidean")
    assert away_NK.min(1).sum() < 1.05 * exact


def test_the_same_points_give_the_same_bits_also_from_storage() -> None:
    points_ND, _ = planted()
    one, other = (in_shards(points_ND, [900]) for _ in range(2))
    kept = from_arrays(to_arrays(one))
    assert torch.equal(one.centres_MD, other.centres_MD)
    assert torch.equal(kept.centres_MD, one.centres_MD.float().double())
    assert torch.equal(kept.sum_D, one.sum_D)
    found = [clustered(part, GROUPS, 5).centres_KD for part in (one, other)]
    assert torch.equal(*found)


def test_a_group_that_tells_nothing_is_left_out() -> None:
    points_ND, label_N = planted()
    points_ND[:, 6:] = 3.0
    found = clustered(in_shards(points_ND, [1500]), GROUPS, PLANTED)
    assert found.scale_G[1] == 0
    assert adjusted_rand_score(label_N, assigned(points_ND, found)) > 0.99


def test_more_clusters_than_points_and_features_that_are_no_numbers_are_refused() -> None:
    few = gathered(torch.ones(5, 9), GROUPS, 64, images=1)
    with pytest.raises(ValueError, match="expected at least 3 different points"):
        clustered(few, GROUPS, 3)
    with pytest.raises(ValueError, match="NaN"):
        gathered(torch.full((1, 9), torch.nan), GROUPS, 64, images=1)
    with pytest.raises(ValueError, match="9 entries"):
        gathered(torch.ones(1, 8), GROUPS, 64, images=1)


def test_a_shard_without_points_changes_nothing() -> None:
    points_ND, _ = planted()
    nothing = gathered(torch.zeros(0, 9), GROUPS, 64, images=0)
    whole = in_shards(points_ND, [])
    both = merged([nothing, whole, reduced(nothing, GROUPS, 2)])
    assert torch.equal(
        clustered(both, GROUPS, 5).centres_KD, clustered(whole, GROUPS, 5).centres_KD
    )


def test_distances_are_those_of_features_enlarged_to_the_image() -> None:
    generator = torch.Generator().manual_seed(3)
    maps = [torch.randn(2, 6, 4, 4, generator=generator), torch.randn(2, 3, 12, 12)]
    centres_KD, scale_G = torch.randn(5, 9, generator=generator), torch.tensor([0.7, 1.3])
    away_BKHW = distances(maps, centres_KD, scale_G, (12, 12))
    large = [interpolate(m, (12, 12), mode="bilinear", align_corners=False) for m in maps]
    wide_D = np.repeat([0.7, 1.3], GROUPS.sizes)
    for image in range(2):
        f_PD = torch.cat([m[image] for m in large]).flatten(1).T.numpy() * wide_D
        true_PK = cdist(f_PD, centres_KD.numpy() * wide_D, "sqeuclidean")
        ours_PK = away_BKHW[image].flatten(1).T.numpy() + (f_PD**2).sum(1, keepdims=True)
        np.testing.assert_allclose(ours_PK, true_PK, atol=1e-4)


def test_sampled_points_are_the_features_of_these_pixels() -> None:
    maps = [torch.randn(6, 4, 4), torch.randn(3, 12, 12)]
    places_P = torch.tensor([0, 77, 143])
    points_PD = sampled(maps, places_P, (12, 12))
    large = interpolate(maps[0][None], (12, 12), mode="bilinear", align_corners=False)[0]
    for row, (y, x) in enumerate(((0, 0), (6, 5), (11, 11))):
        torch.testing.assert_close(points_PD[row], torch.cat([large[:, y, x], maps[1][:, y, x]]))
