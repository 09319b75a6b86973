"""The half of a rectifier's batches that comes back from DDIM inversions, against inversion and
decoding themselves.

Shape suffixes: N examples, B rows, L, Y, X of the latent.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.sampling.ddim import inversion, transfer
from lib.sampling.grid import make_grid
from pipelines.training.batches import Batch, Plan
from pipelines.training.example_store import Examples
from pipelines.training.reconstruction_batches import ReconstructionBatches

COUNTS = (2, 3, 6)
GRIDS = [make_grid({}, count, "linspace") for count in COUNTS]
ROWS = 6
"""Of each half."""


def frozen(x_BLYX: Tensor, t: int) -> Tensor:
    """Some function of both."""
    return torch.tanh(x_BLYX * (1 + t / 1000)) + t / 500


def rectified(x_BLYX: Tensor, t: int) -> Tensor:
    """Another one."""
    return frozen(x_BLYX, t) * 0.9


def batches(rank: int = 0, workers: int = 1) -> ReconstructionBatches:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    plan = Plan(
        examples=Examples(5, images, None, None, None, "0" * 64, ()),
        grid=GRIDS[0],
        alphas_T=torch.linspace(0.999, 0.001, 1000),
        nodes=(2, 1),
        seed=3,
        batch_size=2 * ROWS,
        rank=rank,
        workers=workers,
        device=torch.device("cpu"),
    )
    denoiser: Any = SimpleNamespace(predict=frozen)
    return ReconstructionBatches(plan, denoiser, GRIDS, refinements=0)


def seen(of: ReconstructionBatches, steps: int) -> list[Batch]:
    """The batches of so many steps."""
    found = []
    for step in range(steps):
        batch = of.batch(step)
        found.append(batch)
        rows = zip(batch.x_BLYX.split(1), batch.t_B.tolist(), strict=True)
        edited_BLYX = torch.cat([rectified(x_1LYX, t) for x_1LYX, t in rows])
        of.carry(batch, torch.zeros_like(edited_BLYX), edited_BLYX)
    return found


@pytest.mark.parametrize("row", range(ROWS))
def test_every_row_is_inverted_and_decoded_and_then_another_image_is(row: int) -> None:
    grid, own = GRIDS[row % len(GRIDS)], ROWS + row
    both = seen(batches(), 2 * grid.num_steps)
    for passage in (both[: grid.num_steps], both[grid.num_steps :]):
        x0_1LYX = passage[0].x0_BLYX[own : own + 1]
        steps = inversion(frozen, grid, x0_1LYX, last=grid.num_steps, refinements=0)
        *_, (_, x_1LYX) = steps
        for node, batch in zip(range(grid.num_steps, 0, -1), passage, strict=True):
            t, alpha = grid.timestep(node), grid.alphas[node]
            assert batch.noise_BLYX is not None
            assert torch.equal(batch.x0_BLYX[own], x0_1LYX[0])
            assert torch.allclose(batch.x_BLYX[own], x_1LYX[0], rtol=1e-4, atol=1e-5)
            assert int(batch.t_B[own]) == t
            noised = alpha**0.5 * x0_1LYX[0] + (1 - alpha) ** 0.5 * batch.noise_BLYX[own]
            assert torch.allclose(noised, x_1LYX[0], rtol=1e-3, atol=1e-4)
            x_1LYX = transfer(x_1LYX, rectified(x_1LYX, t), alpha, grid.alphas[node - 1])


def test_workers_share_the_rows_of_one() -> None:
    one, *two = (batches(rank, workers) for rank, workers in ((0, 1), (0, 2), (1, 2)))
    assert [each.cycle for each in (one, *two)] == [6, 6, 6]
    whole, *halves = (seen(each, 7) for each in (one, *two))
    for step, batch in enumerate(whole):
        parts = [half[step].x_BLYX.chunk(2) for half in halves]
        joined = torch.cat([part[kind] for kind in (0, 1) for part in parts])
        assert torch.allclose(batch.x_BLYX, joined)
