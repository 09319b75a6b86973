"""Learned editors on the whole way down, against DDIM steps written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.direction import Direction
from lib.editing.edit_decoding import EditDecoder
from lib.editing.edit_shifts import EditShifts
from lib.editing.x_guidance import Along
from lib.editors.learned_editor import LearnedEditor
from lib.models.unet_denoiser import UNetDenoiser
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid
from lib.sampling.sampler import plain_latent
from lib.shift import Shift

INJECTIONS = ["asymmetric", "symmetric"]
TOP = 8
"""Node of timestep 799, where the window begins; it ends at node 4, timestep 399."""


@dataclass
class OtherNetwork:
    denoiser: UNetDenoiser
    evaluations: int = 1

    def noise(self, x_BLYX: Tensor, t: int, x0_LYX: Tensor) -> Tensor:
        return self.denoiser.predict(x_BLYX, t)


@pytest.fixture(name="other")
def other_network(denoiser: UNetDenoiser) -> UNetDenoiser:
    network = copy.deepcopy(denoiser.network)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return denoiser.with_network(network)


@pytest.fixture(name="x_LYX")
def noisy() -> Tensor:
    return torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))


def walked(predict: Callable[[Tensor, int], Tensor], grid: Grid, x_LYX: Tensor) -> Tensor:
    """x_0 by DDIM, eq. 12 of Song et al. (2021)."""
    x_BLYX = x_LYX[None]
    for node in range(TOP, 0, -1):
        alpha, below = grid.alphas[node], grid.alphas[node - 1]
        eps_BLYX = predict(x_BLYX, grid.timestep(node))
        x0_BLYX = (x_BLYX - sqrt(1 - alpha) * eps_BLYX) / sqrt(alpha)
        x_BLYX = sqrt(below) * x0_BLYX + sqrt(1 - below) * eps_BLYX
    return x_BLYX[0]


def decoder(denoiser: UNetDenoiser, shifts: EditShifts, batch_size: int = 4) -> EditDecoder:
    return EditDecoder(denoiser, DdimSampler(), shifts, x_edit=Along(), batch_size=batch_size)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_a_network_at_strength_one_predicts_in_the_window_in_the_place_of_the_frozen_one(
    denoiser: UNetDenoiser,
    other: UNetDenoiser,
    shifts: Callable[..., EditShifts],
    learned: Callable[..., LearnedEditor],
    grid: Grid,
    injection: str,
    x_LYX: Tensor,
) -> None:
    editor = learned(None, OtherNetwork(other), unit_strength=1.0)
    edits = [Shift(editor, 1.0), Shift(editor, 0.0)]
    found = decoder(denoiser, shifts(injection))(plain_latent(x_LYX), edits, x0_LYX=x_LYX)

    def within(x_BLYX: Tensor, t: int) -> Tensor:
        return (other if 399 <= t <= 799 else denoiser).predict(x_BLYX, t)

    plain_LYX, edited_LYX = walked(denoiser.predict, grid, x_LYX), walked(within, grid, x_LYX)
    close(found.x_BLYX[0], plain_LYX)
    close(found.x_BLYX[1], edited_LYX)
    close(found.x_BLYX[2], plain_LYX)
    assert (edited_LYX - plain_LYX).abs().max() > 1e-2
    # Eight nodes of three rows; in the five of the window, one more for each of the two edits.
    assert found.evaluations == 8 * 3 + 5 * 2


@pytest.mark.parametrize("injection", INJECTIONS)
@torch.no_grad()
def test_edits_in_one_batch_are_those_of_batches_of_one(
    denoiser: UNetDenoiser,
    shifts: Callable[..., EditShifts],
    learned: Callable[..., LearnedEditor],
    direction: Direction,
    known_noise: Any,
    injection: str,
    x_LYX: Tensor,
) -> None:
    function = learned(lambda h, t: torch.tanh(h) * (t / 1000), window=(650, 450))
    network = learned(None, known_noise(evaluations=2), window=(999, 550))
    edits = [
        Shift(network, 0.5),
        Shift(function, 1.0),
        Shift(direction, 0.4, (Shift(function, -1.0),)),
        Shift(network, 0.5, (Shift(function, 1.0), Shift(direction, 0.4))),
        Shift(function, 0.5, (Shift(network, 0.3),)),
    ]
    x0_LYX = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(2))
    latent = plain_latent(x_LYX)
    wide, narrow = (
        decoder(denoiser, shifts(injection), size)(latent, edits, x0_LYX=x0_LYX) for size in (5, 1)
    )
    close(wide.x_BLYX, narrow.x_BLYX)
    for number, edit in enumerate(edits):
        alone = decoder(denoiser, shifts(injection))(latent, [edit], x0_LYX=x0_LYX)
        close(alone.x_BLYX[1], wide.x_BLYX[1 + number])
        assert (alone.x_BLYX[1] - alone.x_BLYX[0]).abs().max() > 1e-2


@torch.no_grad()
def test_an_asymmetric_function_changes_the_predicted_image_alone(
    denoiser: UNetDenoiser,
    shifts: Callable[..., EditShifts],
    learned: Callable[..., LearnedEditor],
    grid: Grid,
    x_LYX: Tensor,
) -> None:
    """Asyrp's step (Kwon et al. 2023, eq. 5), at one node: 599."""

    def f(h_BCYX: Tensor, t: int) -> Tensor:
        return torch.tanh(h_BCYX) * (t / 1000)

    placed = shifts("asymmetric", (599, 550))
    editor = learned(f, unit_strength=1.0)
    found = decoder(denoiser, placed)(plain_latent(x_LYX), [Shift(editor, 0.8)])
    from lib.sampling.step_weights import window_weights

    w = window_weights(grid, (599, 550), "asymmetric")[6]
    x_BLYX = x_LYX[None]
    for node in range(6, 0, -1):
        t, alpha, below = grid.timestep(node), grid.alphas[node], grid.alphas[node - 1]
        point = denoiser.encode(x_BLYX, t)
        edited_BLYX = point.eps_BLYX
        if node == 6:
            edited_BLYX = denoiser.decode(point, point.h_BCYX + 0.8 * w * f(point.h_BCYX, t))
        x0_BLYX = (x_BLYX - sqrt(1 - alpha) * edited_BLYX) / sqrt(alpha)
        x_BLYX = sqrt(below) * x0_BLYX + sqrt(1 - below) * point.eps_BLYX
    close(found.x_BLYX[1], x_BLYX[0])
    # Six nodes of the reconstruction, a decoder half where the edit joins, and the edit's five.
    assert found.evaluations == 6 + 1 + 5


@torch.no_grad()
def test_a_network_of_one_image_stands_in_for_the_decoders_own(
    denoiser: UNetDenoiser,
    other: UNetDenoiser,
    shifts: Callable[..., EditShifts],
    grid: Grid,
    x_LYX: Tensor,
) -> None:
    decode = decoder(denoiser, shifts("asymmetric"))
    found = decode(plain_latent(x_LYX), [], denoiser=other)
    close(found.x_BLYX[0], walked(other.predict, grid, x_LYX))
    again = decode(plain_latent(x_LYX), [])
    close(again.x_BLYX[0], walked(denoiser.predict, grid, x_LYX))
