"""Inverted x_t that a run of `pipeline: store_latents` has left, for a training.

Shape suffixes: S nodes; L, Y, X of the latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lib.files.samples import ShardDamage
from lib.ledger.run_folder import RunFolder
from lib.problems import ConfigProblem
from lib.receipts import Failure
from lib.records import Inverted, Sample
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid
from pipelines.inversions import read_latents
from tasks.stored_latents import StoredInverter


class StoredStates:
    """Reads shard after shard; holds the latents of one."""

    def __init__(self, folder: RunFolder, grid: Grid, nodes: Sequence[int]) -> None:
        self._folder = folder
        self._grid = grid
        self._nodes = tuple(nodes)
        self._shard = ""
        self._invert: StoredInverter | Failure | None = None

    def of(self, sample: Sample, shard_sha256: str) -> Tensor | Failure:
        """(S, L, Y, X) float32, CPU, or why there is none of this sample."""
        if self._shard != sample.shard:
            self._shard, self._invert = sample.shard, self._opened(sample, shard_sha256)
        if isinstance(self._invert, Failure):
            return self._failure(sample, self._invert.kind, self._invert.message)
        failures: list[Failure] = []
        if self._invert is None:
            raise ValueError("no shard has been opened")
        for inverted in self._invert([sample], failures.append):
            return self._states(inverted)
        return failures[0]

    def _states(self, inverted: Inverted) -> Tensor:
        x = inverted.states_LYX
        return torch.stack([x[self._grid.timestep(node)] for node in self._nodes])

    def _opened(self, sample: Sample, shard_sha256: str) -> StoredInverter | Failure:
        try:
            stored = read_latents(self._folder, sample.shard, shard_sha256)
        except ShardDamage as error:
            return self._failure(sample, error.kind, str(error))
        held = {stored.timestep, *stored.x}
        lacking = sorted({self._grid.timestep(n) for n in self._nodes} - held)
        if lacking and len(stored.index_N):
            raise ConfigProblem(
                f"training.latents: expected x_t at the timesteps {lacking} of this training's grid"
                f" and window, and {sample.shard} has them at {sorted(held)}; store them with"
                " `invert.keep`"
            )
        return StoredInverter(
            stored,
            self._grid,
            DdimSampler(),
            last=self._nodes[0],
            keep=frozenset(self._nodes),
            device=torch.device("cpu"),
        )

    def _failure(self, sample: Sample, kind: str, message: str) -> Failure:
        return Failure(sample.shard, sample.index, sample.key, "invert", kind, message)
