"""The Jacobian as the published scripts compute it: every forward-mode pass runs the whole U-Net,
though only the part behind h depends on h.

Shape suffixes: K vectors, D entries of h, N entries of the image; C, Y, X as in lib.denoiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.scenes import Scene


class WholeNetwork:
    """d P_t / d h by hooks on an ordinary forward.

    To the advantage of the published methods, the reverse graph is built once and kept (their code
    builds it in every iteration), and forward-mode batches share the primal by `vmap`.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._unet = scene.unet
        self.jvp_count = 0
        self.vjp_count = 0
        with self._strides(), torch.no_grad():
            taps: list[Tensor] = []
            with _hooked(self._unet.mid_block, lambda _m, _a, h: taps.append(h)):
                self._unet(scene.x_BLYX, scene.t)
            self._h_BCYX = taps[0].detach().clone().requires_grad_()
        self.domain = self._h_BCYX.numel()
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            self._out_N = self._forward(self._h_BCYX)

    def jvp(self, V_KD: Tensor) -> Tensor:
        """Forward-mode through the whole network, all rows in one batch, (K, N)."""
        h_BCYX = self._h_BCYX.detach()

        def one(v_D: Tensor) -> Tensor:
            tangent_N: Tensor = torch.func.jvp(self._forward, (h_BCYX,), (v_D.view_as(h_BCYX),))[1]
            return tangent_N

        self.jvp_count += len(V_KD)
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            if len(V_KD) == 1:
                return one(V_KD[0])[None] * self._scene.scale
            return torch.func.vmap(one)(V_KD) * self._scene.scale

    def vjp(self, U_KN: Tensor) -> Tensor:
        """Reverse-mode on the kept graph, (K, D)."""
        self.vjp_count += len(U_KN)
        batched = len(U_KN) > 1
        with sdpa_kernel(SDPBackend.MATH):
            (grad,) = torch.autograd.grad(
                self._out_N,
                self._h_BCYX,
                U_KN if batched else U_KN[0],
                retain_graph=True,
                is_grads_batched=batched,
            )
        return grad.reshape(len(U_KN), -1) * self._scene.scale

    def _forward(self, h_BCYX: Tensor) -> Tensor:
        with self._strides(), _hooked(self._unet.mid_block, lambda _m, _a, _h: h_BCYX):
            out_N: Tensor = self._unet(self._scene.x_BLYX, self._scene.t).sample.flatten()
        return out_N

    @contextmanager
    def _strides(self) -> Iterator[None]:
        """Skip connections made contiguous: attention blocks leave them channels-last, and the
        forward derivative of GroupNorm then fails on a view.
        """
        handles = [
            block.register_forward_hook(lambda _m, _a, output: _contiguous(output))
            for block in self._unet.down_blocks
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _contiguous(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.contiguous()
    return tuple(_contiguous(part) for part in output)


@contextmanager
def _hooked(module: Any, hook: Any) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
