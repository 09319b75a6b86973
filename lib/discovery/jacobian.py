"""Jacobians of the network at one point, as products only.

Three maps are of use: d P_t / d h with x_t and all skip connections fixed (Haas et al. 2024, eq. 9
and 16: d P_t / d h = -sqrt(1 - alpha) / sqrt(alpha) d eps / d h), d P_t / d x_t (LOCO), and d h / d
x_t (Park et al. 2023, the pullback).

Shape suffixes: K vectors, D entries of the domain, N of the range, B batch; L, C, Y, X as in
`denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.denoiser import Denoiser, Point

Products = Literal["linearised", "forward", "difference", "double_backward"]
"""How J v is computed. linearised: a forward pass of the network's derivative, 1 decoder pass a
vector; d P_t / d h only. forward: forward-mode AD, K + 2 passes for K vectors. double_backward:
the reverse of the reverse pass, about 2 a vector. difference: central differences, 2 a vector,
for networks that have no derivative of either kind; three digits. J^T u is reverse-mode AD always.
"""

_DIFFERENCE_STEP = 1e-2
"""Relative to the norm of the point; measured best in float32."""


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


class Jacobian:
    """The Jacobian of a function of one tensor at a point of batch 1.

    The reverse graph is built once and kept; products run in chunks, which bounds memory. Attention
    runs in its plain mathematical form, because the fused kernels have no forward derivative.
    """

    def __init__(
        self,
        function: Callable[[Tensor], Tensor],
        point_B: Tensor,
        *,
        products: Products,
        chunk: int,
        linearised: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if products == "linearised" and linearised is None:
            products = "forward"
        self._function = function
        self._x_B = point_B.detach()
        self._linearised = linearised
        self._chunk = chunk
        self.products: Products = products
        """What is used: `forward` where no linearisation is given."""
        self.domain = point_B[0].numel()
        self.jvp_count = 0
        self.vjp_count = 0
        with sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
            self._leaf_B = self._x_B.clone().requires_grad_()
            self._y_B = function(self._leaf_B)
            if products == "double_backward":
                self._u_B = torch.zeros_like(self._y_B, requires_grad=True)
                (self._back_B,) = torch.autograd.grad(
                    self._y_B, self._leaf_B, self._u_B, create_graph=True
                )

    def jvp(self, V_KD: Tensor) -> Tensor:
        """J v for every row, (K, N)."""
        self.jvp_count += len(V_KD)
        product = {
            "linearised": self._linear,
            "forward": self._forward,
            "difference": self._difference,
            "double_backward": self._double_backward,
        }[self.products]
        with sdpa_kernel(SDPBackend.MATH):
            return torch.cat([product(part).flatten(1) for part in V_KD.split(self._chunk)])

    def vjp(self, U_KN: Tensor) -> Tensor:
        """J^T u for every row, (K, D)."""
        self.vjp_count += len(U_KN)
        with sdpa_kernel(SDPBackend.MATH):
            rows = [
                _pulled(self._y_B, self._leaf_B, part.view(len(part), *self._y_B.shape))
                for part in U_KN.split(self._chunk)
            ]
        return torch.cat(rows)

    @torch.no_grad()
    def _linear(self, V_KD: Tensor) -> Tensor:
        if self._linearised is None:
            raise ValueError("this map has no linearisation")
        return self._linearised(V_KD.view(len(V_KD), *self._x_B.shape[1:]))

    @torch.no_grad()
    def _forward(self, V_KD: Tensor) -> Tensor:
        def one(v_D: Tensor) -> Tensor:
            tangent_B: Tensor = torch.func.jvp(
                self._function, (self._x_B,), (v_D.view_as(self._x_B),)
            )[1]
            return tangent_B

        rows_KB: Tensor = torch.func.vmap(one)(V_KD)
        return rows_KB

    @torch.no_grad()
    def _difference(self, V_KD: Tensor) -> Tensor:
        step = _DIFFERENCE_STEP * float(self._x_B.norm())
        norm_K1 = V_KD.norm(dim=1, keepdim=True).clamp_min(torch.finfo(V_KD.dtype).tiny)
        shift_KB = (step * V_KD / norm_K1).view(len(V_KD), *self._x_B.shape[1:])
        both = self._function(torch.cat([self._x_B + shift_KB, self._x_B - shift_KB]))
        up_KB, down_KB = both.flatten(1).chunk(2)
        rows_KN: Tensor = (up_KB - down_KB) * (norm_K1 / (2 * step))
        return rows_KN

    def _double_backward(self, V_KD: Tensor) -> Tensor:
        return _pulled(self._back_B, self._u_B, V_KD.view(len(V_KD), *self._x_B.shape))


def h_jacobian(
    denoiser: Denoiser,
    point: Point,
    alpha: float,
    *,
    chunk: int,
    products: Products = "linearised",
) -> Jacobian:
    """d P_t / d h at a point of batch 1; `alpha` is alpha_bar(t)."""
    scale = -sqrt((1 - alpha) / alpha)
    point = point.contiguous()
    linear = None
    if products == "linearised":
        product = denoiser.linearised(point)

        def linear(tangent_KCYX: Tensor) -> Tensor:
            return scale * product(tangent_KCYX)

    def function(h_BCYX: Tensor) -> Tensor:
        with denoiser.contiguous():
            return scale * denoiser.decode(point, h_BCYX)

    return Jacobian(
        function,
        point.h_BCYX,
        products=products,
        chunk=chunk,
        linearised=linear,
    )


def x_jacobian(
    denoiser: Denoiser,
    x_BLYX: Tensor,
    t: int,
    alpha: float,
    *,
    chunk: int,
    products: Products = "forward",
) -> Jacobian:
    """d P_t / d x_t through the whole network (LOCO, Chen et al. 2024, sec. 3)."""

    def function(x_BLYX: Tensor) -> Tensor:
        with denoiser.contiguous():
            return (x_BLYX - sqrt(1 - alpha) * denoiser.predict(x_BLYX, t)) / sqrt(alpha)

    return Jacobian(function, x_BLYX, products=products, chunk=chunk)


def pullback(
    denoiser: Denoiser, x_BLYX: Tensor, t: int, *, chunk: int, products: Products = "forward"
) -> Jacobian:
    """d h / d x_t, whose right singular vectors are the pullback basis (Park et al. 2023)."""

    def function(x_BLYX: Tensor) -> Tensor:
        with denoiser.contiguous():
            return denoiser.bottleneck(x_BLYX, t)

    return Jacobian(function, x_BLYX, products=products, chunk=chunk)


def _pulled(y_B: Tensor, x_B: Tensor, cotangent_KB: Tensor) -> Tensor:
    """Gradients for K cotangents on a kept graph, (K, D)."""
    (grad_KB,) = torch.autograd.grad(
        y_B, x_B, cotangent_KB, retain_graph=True, is_grads_batched=True
    )
    rows_KD: Tensor = grad_KB.flatten(1)
    return rows_KD
