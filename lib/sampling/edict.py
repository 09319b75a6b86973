"""EDICT (Wallace, Gokul & Naik 2023, arXiv 2211.12446): two coupled states, each the other's view
of the network, so that every step can be undone exactly.

Exact but for rounding, for twice the evaluations of DDIM both ways. What it costs: the way up
multiplies the difference of the two states by 1 / mixing for each at every node, so x_t blows up
with many steps (mixing 0.8, N = 50: std 1065 instead of 1); the way down magnifies rounding with
few. When kernels round differently both ways, embedded faces come back from the last timestep with
42 dB at N = 10 and 57 dB at N = 25 (BDIA: 84 and 90), and from t = 560 at N = 50 with 121 dB. An
edit at N = 50 is 0.76 of the size it has after refined DDIM, at a cosine of 0.99
(`benchmarks.inversion`, `benchmarks.inversion_edits`; 8 and 4 faces).

Shape suffixes: as in `sampler`; S = 2, the states x and y of the paper.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.sampling.ddim import Predictor, transfer
from lib.sampling.ddim_sampler import step_mean
from lib.sampling.evaluations import inversion_evaluations, step_evaluations
from lib.sampling.grid import Grid
from lib.sampling.sampler import Inversion, Steer


@dataclass(frozen=True, slots=True)
class EdictSampler:
    """EDICT; its decode ends with x.

    The states are float64 (the network sees them as float32): rounding grows by 1 / mixing twice
    a node on the way up. The two take turns in going first, as in the paper.
    """

    mixing: float = 0.93
    """p: how much of itself a state keeps."""

    def inversion_evaluations(self, last: int) -> int:
        """2 a node."""
        return inversion_evaluations("edict", last)

    @property
    def step_evaluations(self) -> int:
        """Two."""
        return step_evaluations("edict")

    def fresh_nodes(self, grid: Grid, last: int) -> Sequence[int]:
        """None."""
        return ()

    def invert(
        self,
        predict: Predictor,
        grid: Grid,
        x0_BLYX: Tensor,
        *,
        last: int,
        wanted: Collection[int],
        seeds: Sequence[int],
    ) -> Inversion:
        """See `lib.sampling.sampler.Sampler`; no noise, so `seeds` decide nothing."""
        states_SBLYX = x0_BLYX.double().expand(2, *x0_BLYX.shape)
        x, at_last_SBLYX = {}, states_SBLYX
        for node in range(1, max(last, *wanted, 0) + 1):
            states_SBLYX = self._up(predict, grid, node, states_SBLYX)
            if node in wanted:
                x[node] = states_SBLYX[0].float()
            if node == last:
                at_last_SBLYX = states_SBLYX
        return Inversion(at_last_SBLYX, {}, x)

    def step(
        self, steer: Steer, grid: Grid, node: int, states_SBLYX: Tensor, noise_LYX: Tensor | None
    ) -> Tensor:
        """Both updates steered; see `lib.sampling.sampler.Sampler`."""
        p, (first, second) = self.mixing, _order(node)
        u_BLYX, v_BLYX = states_SBLYX[first], states_SBLYX[second]
        u_BLYX = step_mean(u_BLYX, *steer(v_BLYX), grid, node)
        v_BLYX = step_mean(v_BLYX, *steer(u_BLYX), grid, node)
        u_BLYX = p * u_BLYX + (1 - p) * v_BLYX
        v_BLYX = p * v_BLYX + (1 - p) * u_BLYX
        return _in_order(u_BLYX, v_BLYX, first)

    def _up(self, predict: Predictor, grid: Grid, node: int, states_SBLYX: Tensor) -> Tensor:
        """From the node below to `node`, every line of `step` undone, the last first."""
        p, t, (first, second) = self.mixing, grid.timestep(node), _order(node)
        below, here = grid.alphas[node - 1], grid.alphas[node]
        u_BLYX, v_BLYX = states_SBLYX[first], states_SBLYX[second]
        v_BLYX = (v_BLYX - (1 - p) * u_BLYX) / p
        u_BLYX = (u_BLYX - (1 - p) * v_BLYX) / p
        v_BLYX = transfer(v_BLYX, predict(u_BLYX.float(), t), below, here)
        u_BLYX = transfer(u_BLYX, predict(v_BLYX.float(), t), below, here)
        return _in_order(u_BLYX, v_BLYX, first)


def _order(node: int) -> tuple[int, int]:
    """Which state goes first on the way down, and which second."""
    return (0, 1) if node % 2 == 0 else (1, 0)


def _in_order(u_BLYX: Tensor, v_BLYX: Tensor, first: int) -> Tensor:
    return torch.stack([u_BLYX, v_BLYX] if first == 0 else [v_BLYX, u_BLYX])
