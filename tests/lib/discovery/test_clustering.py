"""Clustering and shared subspaces against planted ones, and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

import lib.discovery.clustering as clustering_module
import lib.discovery.shared_subspace as subspace_module
from lib.discovery.clustering import clusters
from lib.discovery.shared_subspace import mean_directions, shared_directions

ENTRIES = 400


def unit(v_ND: Tensor) -> Tensor:
    return v_ND / v_ND.norm(dim=-1, keepdim=True)


def planted(
    counts: tuple[int, ...], degrees: float, seed: int = 0
) -> tuple[Tensor, Tensor, np.ndarray]:
    """(rows with random signs at `degrees` from their centre, centres, which centre is whose)."""
    generator = torch.Generator().manual_seed(seed)
    centre_KD = torch.linalg.qr(torch.randn(ENTRIES, len(counts), generator=generator))[0].T
    owner = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(owner)
    own_ND = centre_KD[torch.from_numpy(owner)]
    noise_ND = torch.randn(len(owner), ENTRIES, generator=generator)
    noise_ND = unit(noise_ND - (noise_ND * own_ND).sum(1, keepdim=True) * own_ND)
    angle = math.radians(degrees)
    sign_N = torch.randint(0, 2, (len(owner), 1), generator=generator) * 2 - 1
    return sign_N * (math.cos(angle) * own_ND + math.sin(angle) * noise_ND), centre_KD, owner


def test_planted_directions_come_back_whatever_their_signs() -> None:
    v_ND, centre_KD, owner = planted((40, 25, 10), degrees=30)
    found = clusters(v_ND, 45)
    assert sorted(len(c.members) for c in found) == [10, 25, 40]
    for cluster in found:
        (centre,) = {int(owner[row]) for row in cluster.members}
        # n members at 30 degrees in independent directions: tan = tan(30) / sqrt(n).
        off = math.atan(math.tan(math.radians(30)) / math.sqrt(len(cluster.members)))
        assert abs(float(cluster.mean_D @ centre_KD[centre])) == pytest.approx(
            math.cos(off), abs=0.01
        )
        # Below sin(30) by a little: each member has drawn the mean towards itself.
        assert math.sin(math.radians(27)) <= cluster.spread <= math.sin(math.radians(30))
        assert float(cluster.mean_D @ v_ND[cluster.members[0]]) > 0


def test_members_further_from_each_other_than_the_angle_still_meet_at_their_mean() -> None:
    v_ND, _, owner = planted((30, 30), degrees=40)  # two members are 54 degrees apart
    found = clusters(v_ND, 45)
    assert len(found) == 2
    assert {frozenset(owner[list(c.members)]) for c in found} == {frozenset({0}), frozenset({1})}


def test_rows_near_nothing_stay_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    v_ND = unit(torch.randn(20, ENTRIES, generator=generator))
    found = clusters(v_ND, 45)
    assert [c.members for c in found] == [(row,) for row in range(20)]
    for cluster, v_D in zip(found, v_ND, strict=True):
        torch.testing.assert_close(cluster.mean_D, v_D)
        assert cluster.spread < 1e-3


def test_a_weight_counts_a_row_so_many_times() -> None:
    v_ND = unit(torch.tensor([[1.0, 0.2, 0.0], [1.0, -0.4, 0.0]]))
    (weighted,) = clusters(v_ND, 45, weight_N=torch.tensor([3.0, 1.0]))
    (repeated,) = clusters(v_ND[[0, 0, 0, 1]], 45)
    torch.testing.assert_close(weighted.mean_D, repeated.mean_D)


def test_every_row_is_in_one_cluster_and_within_the_angle_of_its_mean() -> None:
    generator = torch.Generator().manual_seed(5)
    v_ND = unit(torch.randn(300, 6, generator=generator))  # crowded: many borderline rows
    found = clusters(v_ND, 30)
    assert sorted(row for c in found for row in c.members) == list(range(300))
    inside = [
        float((v_ND[row] @ c.mean_D).abs()) > math.cos(math.radians(31))
        for c in found
        for row in c.members
    ]
    assert sum(inside) >= 0.98 * 300


def test_small_blocks_give_the_same_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    v_ND, _, _ = planted((30, 20, 9), degrees=25)
    whole = clusters(v_ND, 45)
    for name in ("_ROWS", "_LEADERS", "_COLUMNS"):
        monkeypatch.setattr(clustering_module, name, 7)
    blocked = clusters(v_ND, 45)
    assert [c.members for c in blocked] == [c.members for c in whole]
    for one, other in zip(blocked, whole, strict=True):
        torch.testing.assert_close(one.mean_D, other.mean_D)


def spans(images: int, seed: int = 0, noise: float = 0.02) -> tuple[Tensor, Tensor, list[int]]:
    """Two rows an image that span nearly the same planted plane, and one row of its own."""
    generator = torch.Generator().manual_seed(seed)
    plane_2D = torch.linalg.qr(torch.randn(ENTRIES, 2, generator=generator))[0].T
    rows, numbers = [], []
    for image in range(images):
        turned_2D = torch.linalg.qr(torch.randn(2, 2, generator=generator))[0] @ plane_2D
        disturbed = turned_2D + noise * torch.randn(2, ENTRIES, generator=generator)
        rows += [*disturbed, torch.randn(ENTRIES, generator=generator)]
        numbers += [image] * 3
    return unit(torch.stack(rows)), plane_2D, numbers


def test_a_plane_that_all_images_share_is_found_though_their_rows_are_turned() -> None:
    v_ND, plane_2D, images = spans(12, noise=0.004)
    found = shared_directions(v_ND, images, 3, 45)
    assert len(found) == 2  # a third eigenvector is near no more than one image's own row
    angles = scipy.linalg.subspace_angles(
        np.stack([f.vector_D.numpy() for f in found]).T, plane_2D.numpy().T
    )
    assert np.degrees(angles).max() < 3
    for one in found:
        assert len(one.nearest) == 12
        assert one.share > 0.97
        assert float(v_ND[one.nearest[0]] @ one.vector_D) > 0


def test_eigenvectors_are_those_of_the_mean_projector() -> None:
    v_ND, _, images = spans(6)
    numbers = np.array(images)
    mean_DD = np.zeros((ENTRIES, ENTRIES))
    for image in range(6):
        basis = scipy.linalg.orth(v_ND[numbers == image].numpy().astype(np.float64).T)
        mean_DD += basis @ basis.T / 6
    values, vectors = scipy.linalg.eigh(mean_DD)
    for place, one in enumerate(shared_directions(v_ND, images, 2, 60), 1):
        assert one.share == pytest.approx(values[-place], abs=1e-5)
        assert abs(float(one.vector_D.double().numpy() @ vectors[:, -place])) > 1 - 1e-6


def test_block_iteration_gives_what_the_gram_matrix_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    v_ND, _, images = spans(40)
    exact = shared_directions(v_ND, images, 2, 60)
    monkeypatch.setattr(subspace_module, "_EXACT_ROWS", 10)
    iterated = shared_directions(v_ND, images, 2, 60)
    for one, other in zip(exact, iterated, strict=True):
        assert float(one.vector_D @ other.vector_D) == pytest.approx(1, abs=1e-4)


def test_the_mean_of_spans_around_a_known_plane_is_that_plane_whatever_the_order() -> None:
    generator = torch.Generator().manual_seed(5)
    plane_KD = torch.linalg.qr(torch.randn(40, 2, generator=generator))[0].T
    rows, images = [], []
    for image in range(12):
        bent_KD = plane_KD + 0.02 * torch.randn(2, 40, generator=generator)
        turn_KK = torch.linalg.qr(torch.randn(2, 2, generator=generator))[0]
        rows.append(torch.nn.functional.normalize(turn_KK @ bent_KD, dim=1))
        images += [image, image]
    v_ND = torch.cat([*rows, rows[0][:1]])  # one image more, with one direction: left out
    found = mean_directions(v_ND, [*images, 12], 30)
    assert [len(f.nearest) for f in found] == [12, 12]
    found_KD = torch.stack([f.vector_D for f in found])
    assert torch.linalg.svdvals(found_KD @ plane_KD.T).min() > 0.998
    back = mean_directions(v_ND.flip(0), [12, *images[::-1]], 30)
    for one, other in zip(found, back, strict=True):
        assert abs(float(one.vector_D @ other.vector_D)) > 1 - 1e-5
