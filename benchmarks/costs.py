"""What a Jacobian method costs: decoder-equivalents by a stated model, and memory held.

D is the FLOPs of one decoder forward (h to eps) at batch 1, e those of one encoder forward in D.
A reverse-mode batch of b vectors on a kept graph costs b; a forward-mode batch b + 2, since the
primal runs once and every convolution meets a zero weight tangent; a linearised batch b.

Shape suffixes: K vectors, D entries of h, N entries of the image.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.scenes import Scene
from lib.discovery.jacobian import LinearMap

MODEL = (
    "D = FLOPs of one decoder forward at batch 1, e = those of one encoder forward in D\n"
    "whole U-Net, forward mode, b vectors: b + 2 + e; reverse mode on a kept graph: b\n"
    "decoder alone, forward mode: b + 2; linearised: b; reverse mode on a kept graph: b\n"
    "left out for all: one encode and one graph a point; SVDs and orthogonalisation"
)
Built = TypeVar("Built")


@dataclass(frozen=True, slots=True)
class Network:
    """FLOPs of the parts of a network."""

    decoder_flops: float
    encoder: float
    """e: in units of the decoder."""

    def power(self, iterations: int) -> float:
        """Decoder-equivalents of sequential power iteration: 1 vjp and 1 jvp each."""
        return iterations * (1 + 3 + self.encoder)

    def block(self, iterations: int, size: int) -> float:
        """Decoder-equivalents of block subspace iteration."""
        return iterations * (size + size + 2 + self.encoder)


def network(scene: Scene) -> Network:
    """Counted by torch, on one plain forward of each part."""
    with torch.no_grad():
        point = scene.denoiser.encode(scene.x_BLYX, scene.t)
        decoder = flops(lambda: scene.denoiser.decode(point, point.h_BCYX))
        whole = flops(lambda: scene.unet(scene.x_BLYX, scene.t))
    return Network(decoder, whole / decoder - 1)


def flops(run: Callable[[], object]) -> float:
    """FLOPs of the matrix products and convolutions, forward and backward, that `run` does."""
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def measured(jacobian: LinearMap, entries: int, size: int, parts: Network) -> tuple[float, float]:
    """Decoder-equivalents of one forward and one reverse product of `size` vectors, as counted."""
    generator = torch.Generator().manual_seed(0)
    V_KD = torch.randn(size, jacobian.domain, generator=generator)
    U_KN = torch.randn(size, entries, generator=generator)
    forward = flops(lambda: jacobian.jvp(V_KD))
    backward = flops(lambda: jacobian.vjp(U_KN))
    return forward / parts.decoder_flops, backward / parts.decoder_flops


def overhead(jacobian: LinearMap, parts: Network) -> int:
    """What a forward batch of the decoder alone costs beside its vectors: 2 with forward mode, 0
    where the map is linearised. Counted, so that the model follows the engine.
    """
    V_1D = torch.ones(1, jacobian.domain)
    return round(flops(lambda: jacobian.jvp(V_1D)) / parts.decoder_flops - 1)


class Calls:
    """A linear map that writes down the size of every batch."""

    def __init__(self, inner: LinearMap) -> None:
        self._inner = inner
        self.domain = inner.domain
        self.jvp_count = 0
        self.vjp_count = 0
        self.jvp_batches: list[int] = []
        self.vjp_batches: list[int] = []

    def jvp(self, V_KD: Tensor) -> Tensor:
        """The inner map's."""
        self.jvp_count += len(V_KD)
        self.jvp_batches.append(len(V_KD))
        return self._inner.jvp(V_KD)

    def vjp(self, U_KN: Tensor) -> Tensor:
        """The inner map's."""
        self.vjp_count += len(U_KN)
        self.vjp_batches.append(len(U_KN))
        return self._inner.vjp(U_KN)


def held(scene: Scene, build: Callable[[], Built]) -> tuple[Built, int]:
    """What `build` makes, and the bytes that stay alive for it beside the weights: tensors saved by
    autograd and tensors held by Python objects.
    """
    weights = {_storage(p) for p in scene.unet.parameters()}
    before = _alive() | dict.fromkeys(weights, 0)
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        built = build()
    after = _alive() | saved
    return built, sum(size for storage, size in after.items() if storage not in before)


def _alive() -> dict[int, int]:
    gc.collect()
    # By type, not isinstance: some lazy objects of other libraries import things when asked.
    tensors = [o for o in gc.get_objects() if type(o) in (Tensor, torch.nn.Parameter)]
    return {_storage(t): t.untyped_storage().nbytes() for t in tensors if t.device.type == "cpu"}


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
