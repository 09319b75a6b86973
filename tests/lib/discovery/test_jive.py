"""The reduced JIVE against one that works on the full blocks, and against planted structure."""

import numpy as np
import pytest
import torch

from lib.discovery.jive import Jive, jive


def planted(
    noise: float, regions: int = 3, joint: int = 2, own: int = 2, width: int = 80, seed: int = 0
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Blocks of 10 rows with a joint space and own spaces that are orthogonal to it."""
    generator = torch.Generator().manual_seed(seed)

    def noise_(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    axes_KD = torch.linalg.qr(noise_(width, joint + own * regions)).Q.T
    joint_RD, own_RKD = axes_KD[:joint], axes_KD[joint:].view(regions, own, width)
    blocks = [
        noise_(10, joint) @ joint_RD * 2 + noise_(10, own) @ own_KD + noise * noise_(10, width)
        for own_KD in own_RKD
    ]
    return blocks, joint_RD, own_RKD


def naive(
    blocks: list[np.ndarray], joint_rank: int, ranks: list[int], tolerance: float, limit: int
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """Lock et al. 2013 as written: full blocks, J and A as matrices."""
    total = np.linalg.norm(np.concatenate(blocks))
    own = [np.zeros_like(x) for x in blocks]
    before, count = 1.0, 0
    while True:
        stack = np.concatenate([x - a for x, a in zip(blocks, own, strict=True)])
        u, s, vh = np.linalg.svd(stack, full_matrices=False)
        low = u[:, :joint_rank] * s[:joint_rank] @ vh[:joint_rank]
        joint = np.split(low, np.cumsum([len(x) for x in blocks])[:-1])
        v = vh[:joint_rank]
        for r, rank in enumerate(ranks):
            u, s, wh = np.linalg.svd((blocks[r] - joint[r]) @ (np.eye(v.shape[1]) - v.T @ v))
            own[r] = u[:, :rank] * s[:rank] @ wh[:rank]
        # J of the next step's formula, with this step's A: what X - A has in the joint space.
        left = [x - a - (x - a) @ v.T @ v for x, a in zip(blocks, own, strict=True)]
        residual = np.linalg.norm(np.concatenate(left)) / total
        count += 1
        if abs(before - residual) <= tolerance or count == limit:
            return v, own, count
        before = residual


def projector(rows: np.ndarray) -> np.ndarray:
    unit = np.linalg.svd(rows, full_matrices=False)[2][: np.linalg.matrix_rank(rows)]
    return unit.T @ unit


def as_arrays(result: Jive) -> tuple[np.ndarray, list[np.ndarray]]:
    return result.joint_RD.numpy(), [a.numpy() for a in result.individual]


@pytest.mark.parametrize("noise", [0.02, 0.3])
@pytest.mark.parametrize("ranks", [[2, 2, 2], [1, 3, 4]])
def test_the_reduced_iteration_is_that_of_the_full_blocks(noise: float, ranks: list[int]) -> None:
    blocks, _, _ = planted(noise)
    result = jive(blocks, 2, ranks, tolerance=1e-7, max_iterations=60)
    joint, own, count = naive([x.numpy() for x in blocks], 2, ranks, 1e-7, 60)
    found_joint, found_own = as_arrays(result)
    assert result.iterations == count
    np.testing.assert_allclose(projector(found_joint), projector(joint), rtol=0, atol=1e-10)
    for found, full in zip(found_own, own, strict=True):
        np.testing.assert_allclose(projector(found), projector(full), rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.T @ found, full.T @ full, rtol=0, atol=1e-10)


def test_planted_joint_and_individual_spaces_are_found() -> None:
    blocks, joint_RD, own_RKD = planted(1e-4)
    result = jive(blocks, 2, [2, 2, 2])
    joint, own = as_arrays(result)
    assert result.converged
    assert result.residual < 1e-3
    np.testing.assert_allclose(projector(joint), projector(joint_RD.numpy()), atol=1e-3)
    for found, true in zip(own, own_RKD.numpy(), strict=True):
        np.testing.assert_allclose(projector(found), projector(true), atol=1e-3)


def test_the_individual_rows_are_orthogonal_to_the_joint_space_and_fall() -> None:
    blocks, _, _ = planted(0.3)
    result = jive(blocks, 2, [3, 3, 3])
    torch.testing.assert_close(
        result.joint_RD @ result.joint_RD.T, torch.eye(2).double(), rtol=0, atol=1e-12
    )
    for rows_KD in result.individual:
        assert float((rows_KD @ result.joint_RD.T).abs().max()) < 1e-12
        gram_KK = rows_KD @ rows_KD.T
        assert float((gram_KK - gram_KK.diagonal().diag()).abs().max()) < 1e-10
        assert (gram_KK.diagonal().diff() <= 0).all()


def test_coordinates_in_one_basis_give_the_same_as_the_full_rows() -> None:
    blocks, _, _ = planted(0.3)
    basis_DD = torch.linalg.qr(torch.randn(200, 80, dtype=torch.float64)).Q
    wide = jive([x_KD @ basis_DD.T for x_KD in blocks], 2, [2, 2, 2])
    narrow = jive(blocks, 2, [2, 2, 2])
    lifted = narrow.joint_RD @ basis_DD.T
    torch.testing.assert_close(
        wide.joint_RD.T @ wide.joint_RD, lifted.T @ lifted, atol=1e-10, rtol=0
    )


def test_identical_regions_have_nothing_of_their_own() -> None:
    blocks, _, _ = planted(0.0)
    result = jive([blocks[0]] * 3, 4, [2, 2, 2])
    assert result.residual < 1e-12
    assert [len(rows_KD) for rows_KD in result.individual] == [0, 0, 0]


def test_without_a_joint_rank_the_individual_rows_are_the_singular_vectors() -> None:
    blocks, _, _ = planted(0.3)
    result = jive(blocks, 0, [3, 3, 3])
    assert result.joint_RD.shape == (0, 80)
    for x_KD, rows_KD in zip(blocks, result.individual, strict=True):
        _, s_K, v_KD = np.linalg.svd(x_KD.numpy(), full_matrices=False)
        expected = (v_KD[:3].T * s_K[:3] ** 2) @ v_KD[:3]
        np.testing.assert_allclose((rows_KD.T @ rows_KD).numpy(), expected, atol=1e-9)


def test_impossible_ranks_and_blocks_are_refused() -> None:
    blocks, _, _ = planted(0.1)
    with pytest.raises(ValueError, match=r"joint rank must lie in 0\.\.30.* got 31"):
        jive(blocks, 31, [1, 1, 1])
    with pytest.raises(ValueError, match="10 rows cannot have the individual rank 11"):
        jive(blocks, 1, [11, 1, 1])
    with pytest.raises(ValueError, match="3 blocks need as many ranks, got 2"):
        jive(blocks, 1, [1, 1])
    with pytest.raises(ValueError, match=r"widths \[3, 80\]"):
        jive([*blocks, torch.ones(2, 3)], 1, [1, 1, 1, 1])
    with pytest.raises(ValueError, match="NaN"):
        jive([torch.full((2, 3), float("nan"))], 1, [1])
    with pytest.raises(ValueError, match="all blocks are zero"):
        jive([torch.zeros(2, 3)], 1, [1])
