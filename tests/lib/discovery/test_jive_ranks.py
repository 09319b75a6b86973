import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles

from lib.discovery.jive_ranks import angle_rank, permutation_ranks


def planted(
    joint: int, own: tuple[int, ...], noise: float = 0.05, seed: int = 0
) -> list[torch.Tensor]:
    """Thin factors S V^T, 12 rows of 300 entries: `joint` shared directions, `own` others."""
    generator = np.random.default_rng(seed)
    axes = np.linalg.qr(generator.normal(size=(300, joint + sum(own))))[0].T
    shared, rest = axes[:joint], np.split(axes[joint:], np.cumsum(own)[:-1])
    blocks = []
    for basis in rest:
        signal = np.concatenate([shared, basis])
        left = np.linalg.qr(generator.normal(size=(200, len(signal))))[0]
        full = left * np.linspace(8, 5, len(signal)) @ signal
        full = full + noise * generator.normal(size=full.shape)
        _, s, vh = np.linalg.svd(full, full_matrices=False)
        blocks.append(torch.from_numpy(s[:12, None] * vh[:12]))
    return blocks


@pytest.mark.parametrize(
    ("joint", "own"), [(2, (1, 2, 1)), (0, (2, 2, 3)), (1, (3, 3)), (3, (1, 1, 1, 1))]
)
def test_the_permutation_test_finds_planted_ranks(joint: int, own: tuple[int, ...]) -> None:
    found = permutation_ranks(planted(joint, own), seed=1, permutations=40)
    assert found == (joint, own)


def test_the_permutation_test_is_the_same_for_the_same_seed() -> None:
    blocks = planted(2, (2, 2), noise=0.3)
    first = permutation_ranks(blocks, seed=5, permutations=20)
    assert permutation_ranks(blocks, seed=5, permutations=20) == first


def test_a_given_joint_rank_is_kept() -> None:
    joint, own = permutation_ranks(planted(2, (1, 2, 1)), seed=1, permutations=20, joint_rank=2)
    assert (joint, own) == (2, (1, 2, 1))


def test_the_angle_rank_of_two_blocks_counts_principal_angles_of_twice_the_threshold() -> None:
    generator = np.random.default_rng(0)
    base = np.linalg.qr(generator.normal(size=(60, 10)))[0]
    angles = np.deg2rad([2, 9, 15, 40, 70])
    turned = base[:, :5] * np.cos(angles) + base[:, 5:] * np.sin(angles)
    mixed = turned @ generator.normal(size=(5, 5))
    np.testing.assert_allclose(np.sort(subspace_angles(base[:, :5], mixed)), angles, atol=1e-7)
    blocks = [torch.from_numpy(base[:, :5].T.copy()), torch.from_numpy(mixed.T.copy())]
    assert [angle_rank(blocks, t / 2) for t in (1, 3, 10, 20, 50, 80)] == [0, 1, 2, 3, 4, 5]


def test_the_angle_rank_needs_a_direction_in_every_block() -> None:
    blocks = planted(2, (2, 2, 2), noise=0.0)
    assert angle_rank(blocks, 5) == 2
    assert angle_rank([blocks[0]] * 3, 5) == 4
    assert angle_rank([*blocks, torch.eye(300)[:3].double()], 5) == 0


def test_an_angle_outside_the_quarter_turn_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 90 degrees, got 90"):
        angle_rank(planted(1, (1, 1)), 90)
