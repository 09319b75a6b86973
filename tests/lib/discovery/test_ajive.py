"""AJIVE against an implementation in numpy and scipy on the full blocks, and planted structure."""

import numpy as np
import pytest
import torch
from scipy.linalg import null_space, orth, subspace_angles

from lib.discovery.ajive import ajive


def planted(
    noise: float, joint: int = 2, own: tuple[int, ...] = (2, 1, 3), seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray]:
    """Blocks of 25 rows and 120 columns with a mean, `joint` shared directions, `own` others."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(120, joint + sum(own))))[0].T
    parts = np.split(axes[joint:], np.cumsum(own)[:-1])
    blocks = []
    for part in parts:
        signal = np.concatenate([axes[:joint], part])
        left = np.linalg.qr(rng.normal(size=(25, len(signal))))[0]
        block = left * np.linspace(9, 6, len(signal)) @ signal
        blocks.append(block + noise * rng.normal(size=block.shape) + 0.05)
    return blocks, axes[:joint]


def reference(
    blocks: list[np.ndarray], ranks: list[int], joint_rank: int, centred: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Feng et al. 2018 with projection matrices of the full space: the joint space is that of the
    largest eigenvalues of the sum of the signals' projectors.
    """
    if centred:
        blocks = [x @ (np.eye(x.shape[1]) - 1 / x.shape[1]) for x in blocks]
    total = np.zeros((blocks[0].shape[1],) * 2)
    cuts = []
    for x, rank in zip(blocks, ranks, strict=True):
        u, s, vh = np.linalg.svd(x)
        total += vh[:rank].T @ vh[:rank]
        cuts.append((s[rank - 1] + s[rank]) / 2)
    joint = np.linalg.eigh(total)[1][:, ::-1][:, :joint_rank]
    beside = null_space(joint.T) if joint_rank else np.eye(len(total))
    individual = []
    for x, cut in zip(blocks, cuts, strict=True):
        u, s, vh = np.linalg.svd(x @ beside @ beside.T)
        keep = int((s > cut).sum())
        individual.append(u[:, :keep] * s[:keep] @ vh[:keep])
    return joint, individual


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("noise", [0.01, 0.3])
@pytest.mark.parametrize("joint_rank", [0, 1, 2, 4])
def test_the_spaces_are_those_of_the_independent_implementation(
    centred: bool, noise: float, joint_rank: int
) -> None:
    blocks, _ = planted(noise)
    ranks = [4, 3, 5]
    tensors = [torch.from_numpy(x) for x in blocks]
    found = ajive(tensors, ranks, seed=0, joint_rank=joint_rank, samples=5, centred=centred)
    joint, individual = reference(blocks, ranks, joint_rank, centred)
    rows = found.joint_RD.numpy()
    np.testing.assert_allclose(rows.T @ rows, joint @ joint.T, rtol=0, atol=1e-10)
    if joint_rank:
        assert float(subspace_angles(rows.T, joint).max()) < 1e-7  # arcsine of rounding
    for mine, full in zip(found.individual, individual, strict=True):
        assert len(mine) == np.linalg.matrix_rank(full)
        gram = (mine.T @ mine).numpy()
        np.testing.assert_allclose(gram, full.T @ full, rtol=0, atol=1e-10 * (1 + gram.max()))


@pytest.mark.parametrize(
    ("joint", "own"), [(2, (2, 1, 3)), (0, (2, 3, 2)), (3, (1, 1)), (1, (2, 2, 2, 2))]
)
def test_the_bounds_find_the_planted_joint_rank(joint: int, own: tuple[int, ...]) -> None:
    blocks, true = planted(0.1, joint, own)
    tensors = [torch.from_numpy(x) for x in blocks]
    found = ajive(tensors, [joint + k for k in own], seed=0, samples=200)
    assert len(found.joint_RD) == joint
    assert [len(rows_KD) for rows_KD in found.individual] == list(own)
    if joint:
        assert np.rad2deg(subspace_angles(found.joint_RD.numpy().T, true.T).max()) < 10


def full_bounds(
    blocks: list[np.ndarray], ranks: list[int], samples: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Both bounds by random vectors of the full space."""
    width = blocks[0].shape[1]
    wedin, chance = np.full(samples, float(len(blocks))), np.empty(samples)

    def beside(basis: np.ndarray, rank: int) -> np.ndarray:
        vectors = rng.normal(size=(len(basis), min(rank, len(basis) - basis.shape[1])))
        return np.linalg.qr(vectors - basis @ basis.T @ vectors)[0]

    for i in range(samples):
        for x, rank in zip(blocks, ranks, strict=True):
            u, s, vh = np.linalg.svd(x, full_matrices=False)
            right = np.linalg.norm(x @ beside(vh[:rank].T, rank), 2)
            left = np.linalg.norm(x.T @ beside(u[:, :rank], rank), 2)
            wedin[i] -= min(max(left, right) / s[rank - 1], 1) ** 2
        frames = [orth(rng.normal(size=(width, rank))) for rank in ranks]
        chance[i] = np.linalg.norm(np.concatenate(frames, axis=1), 2) ** 2
    return float(np.quantile(wedin, 0.05)), float(np.quantile(chance, 0.95))


def test_the_bounds_are_those_of_random_vectors_in_the_full_space() -> None:
    blocks, _ = planted(0.3)
    ranks = [4, 3, 5]
    found = ajive([torch.from_numpy(x) for x in blocks], ranks, seed=0, samples=600)
    wedin, chance = full_bounds(blocks, ranks, 600, np.random.default_rng(1))
    assert found.wedin_bound == pytest.approx(wedin, rel=0.02)
    assert found.random_bound == pytest.approx(chance, rel=0.02)


def test_the_same_seed_gives_the_same_bits() -> None:
    tensors = [torch.from_numpy(x) for x in planted(0.3)[0]]
    first, second = (ajive(tensors, [4, 3, 5], seed=7, samples=50) for _ in range(2))
    assert (first.wedin_bound, first.random_bound) == (second.wedin_bound, second.random_bound)
    assert torch.equal(first.joint_RD, second.joint_RD)


def test_given_individual_ranks_are_used() -> None:
    tensors = [torch.from_numpy(x) for x in planted(0.3)[0]]
    found = ajive(tensors, [4, 3, 5], seed=0, joint_rank=2, individual_ranks=[1, 2, 3], samples=5)
    assert [len(rows_KD) for rows_KD in found.individual] == [1, 2, 3]


def test_impossible_ranks_are_refused() -> None:
    tensors = [torch.from_numpy(x) for x in planted(0.0)[0]]
    with pytest.raises(ValueError, match=r"numerical rank 5 .* signal rank 6"):
        ajive(tensors, [6, 3, 5], seed=0)
    with pytest.raises(ValueError, match=r"joint rank must lie in 0\.\.12, got 13"):
        ajive(tensors, [4, 3, 5], seed=0, joint_rank=13, samples=5)
