"""The one interface of every way from x_0 to x_t and back: DDIM, exact two-state schemes, stored
noise.

A sampler inverts a batch up to a node, and decodes one node at a time, so that whoever edits can
come between. What it needs to come back is a `Latent`; that is all that is stored of an inversion.

Shape suffixes: S states of the sampler, B batch, L latent channels, Y, X height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from lib.fingerprint import sample_seed
from lib.sampling.ddim import Predictor
from lib.sampling.grid import Grid

Steer = Callable[[Tensor], tuple[Tensor, Tensor]]
"""x_BLYX -> (the noise that predicts x_0, the noise that points back to x_t), at one node.

They are one and the same unless an edit shifts h in the first alone (Asyrp).
"""


@dataclass(frozen=True, slots=True)
class Latent:
    """Where the decoding of one image begins."""

    states_SLYX: Tensor
    """What the sampler carries from node to node; the first is x_t. float32, or float64 for
    schemes that are exact only without rounding; on the model's device.
    """
    noises: Mapping[int, Tensor]
    """Node -> z (L, Y, X), float32, for every node at or below with fresh noise in its step."""

    @property
    def x_LYX(self) -> Tensor:  # noqa: N802, a tensor
        """x_t."""
        return self.states_SLYX[0]

    @property
    def is_finite(self) -> bool:
        """Whether it holds neither NaN nor infinity."""
        parts = (self.states_SLYX, *self.noises.values())
        return all(bool(torch.isfinite(part).all()) for part in parts)


def plain_latent(x_LYX: Tensor) -> Latent:
    """Of x_t alone, as deterministic DDIM has it."""
    return Latent(x_LYX[None], {})


@dataclass(frozen=True, slots=True)
class Inversion:
    """A batch, inverted."""

    states_SBLYX: Tensor
    """At the last node."""
    noises: Mapping[int, Tensor]
    """Node -> z (B, L, Y, X)."""
    x: Mapping[int, Tensor]
    """Node -> x_t (B, L, Y, X), float32, at the wanted nodes."""

    def latent(self, row: int) -> Latent:
        """Of one image."""
        noises = {node: z_BLYX[row] for node, z_BLYX in self.noises.items()}
        return Latent(self.states_SBLYX[:, row], noises)


class Sampler(Protocol):
    """A way up and the same way down, on one grid."""

    def inversion_evaluations(self, last: int) -> int:
        """Network evaluations an image of `invert`."""
        ...

    @property
    def step_evaluations(self) -> int:
        """Calls of `steer` in one `step`."""
        ...

    def fresh_nodes(self, grid: Grid, last: int) -> Sequence[int]:
        """Nodes at or below `last` whose noise the image does not decide: it is `seeded_noise`, in
        the noises of `invert` too, and need not be stored.
        """
        ...

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
        """From the clean images up to node `last`, and to the highest of `wanted` if that is
        higher; `seeds`, one an image, are where all noise comes from.
        """
        ...

    def step(
        self, steer: Steer, grid: Grid, node: int, states_SBLYX: Tensor, noise_LYX: Tensor | None
    ) -> Tensor:
        """From `node` to the node below; `noise_LYX` is the latent's for this node, if any: of one
        image for all rows, or (B, L, Y, X) of as many images.
        """
        ...


def noise_seed(shard: str, index: int) -> int:
    """Of all noise in a sample's latent: not the run's, since runs may share latents."""
    return sample_seed("inversion", shard, index)


def seeded_noise(seeds: Sequence[int], node: int, shape: Sequence[int]) -> Tensor:
    """Unit noise (B, *shape), float32, CPU: of each image and node by itself, so that it depends on
    neither the batch nor where the inversion stops.
    """
    generators = [torch.Generator().manual_seed((s * 1_000_003 + node) % 2**63) for s in seeds]
    return torch.stack([torch.randn(*shape, generator=g) for g in generators])
