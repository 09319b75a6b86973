"""The Jacobian of the predicted image with respect to h at one point, as products only.

y(h) = P_t(decode(h)) with x_t and all skip connections fixed (Haas et al. 2024, eq. 9 and 16: d
P_t / d h = -sqrt(1 - alpha) / sqrt(alpha) d eps / d h).

Shape suffixes: K vectors, D entries of h, N entries of the image, B batch; C, Y, X as in
`denoiser`.
"""

from __future__ import annotations

from math import sqrt
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.denoiser import Denoiser, Point


class LinearMap(Protocol):
    """A linear map from D to N known by its products."""

    domain: int
    jvp_count: int
    vjp_count: int

    def jvp(self, V_KD: Tensor) -> Tensor:
        """J v for every row, (K, N)."""
        ...

    def vjp(self, U_KN: Tensor) -> Tensor:
        """J^T u for every row, (K, D)."""
        ...


class HJacobian:
    """d P_t / d h at a point of batch 1, with exact forward- and reverse-mode products.

    The reverse graph is built once and kept; forward products run in one `vmap` of chunks, since a
    batched forward-mode pass shares the primal. Attention runs in its plain mathematical form,
    because the fused kernels have no forward derivative.
    """

    def __init__(self, denoiser: Denoiser, point: Point, alpha: float, *, chunk: int) -> None:
        self._denoiser = denoiser
        self._point = point
        self._scale = -sqrt((1 - alpha) / alpha)
        self._chunk = chunk
        self.domain = point.h_BCYX[0].numel()
        self.jvp_count = 0
        self.vjp_count = 0
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            self._h_BCYX = point.h_BCYX.detach().clone().requires_grad_()
            self._eps_BLYX = denoiser.decode(point, self._h_BCYX)

    def jvp(self, V_KD: Tensor) -> Tensor:
        """Forward-mode products, (K, N)."""
        h_BCYX = self._point.h_BCYX

        def one(v_D: Tensor) -> Tensor:
            tangent_BLYX: Tensor = torch.func.jvp(
                lambda h: self._denoiser.decode(self._point, h), (h_BCYX,), (v_D.view_as(h_BCYX),)
            )[1]
            return tangent_BLYX.flatten()

        self.jvp_count += len(V_KD)
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad():
            rows = [torch.func.vmap(one)(part) for part in V_KD.split(self._chunk)]
        return torch.cat(rows) * self._scale

    def vjp(self, U_KN: Tensor) -> Tensor:
        """Reverse-mode products on the kept graph, (K, D)."""
        self.vjp_count += len(U_KN)
        rows = []
        with sdpa_kernel(SDPBackend.MATH):
            for part in U_KN.split(self._chunk):
                cotangent_KBLYX = part.view(len(part), *self._eps_BLYX.shape)
                (grad_KBCYX,) = torch.autograd.grad(
                    self._eps_BLYX,
                    self._h_BCYX,
                    cotangent_KBLYX,
                    retain_graph=True,
                    is_grads_batched=True,
                )
                rows.append(grad_KBCYX.flatten(1))
        return torch.cat(rows) * self._scale
