"""A network's decoder half linearised at one point, as a plain forward pass.

Forward-mode AD runs the primal again beside every tangent. Here the primal runs once: each
nonlinear module's derivative at its input is kept, and a tangent then passes through the network's
own forward with biases left out, constants zero and nonlinear modules replaced by their
derivatives. A batch of K tangents costs K forwards of the decoder, no more, and needs no AD.

A function that acts outside all modules is taken as linear, except attention, whose derivative is
known (`attention_tangent`). Where that is wrong, forward and reverse products disagree, which every
search checks.

Shape suffixes: K tangents; G groups, M entries a group; the rest as in `denoiser`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import pi, sqrt
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from lib.models.attention_tangent import AttentionRecorder, AttentionReplay

Tangent = Callable[[Tensor], Tensor]
"""(K, ...) -> (K, ...), linear."""

_ATOMIC = (Attention, GEGLU)
"""Modules whose forward holds nonlinear functions outside their children; attention by the one
function of `attention_tangent` is known from within.
"""


class Recording:
    """The derivatives of every nonlinear module that a forward pass calls, in order of the calls.

    Use as a context manager around the primal pass.
    """

    def __init__(
        self, modules: Iterable[nn.Module], scale_shifts: Collection[nn.Module] = ()
    ) -> None:
        self.calls: dict[nn.Module, list[Tangent]] = {m: [] for m in modules}
        self._scale_shifts = scale_shifts
        self._attention = AttentionRecorder()
        self._listening = ExitStack()

    def __enter__(self) -> Recording:
        """Begin to listen."""
        self._listening.enter_context(self._attention)
        for module in self.calls:
            handle = module.register_forward_pre_hook(self._keep, with_kwargs=True)
            self._listening.callback(handle.remove)
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop listening."""
        self._listening.close()

    def _keep(self, module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        if module in self._scale_shifts:
            tangent = _scale_without_shift(module, args[0])
        else:
            tangent = _derivative(module, args, kwargs)
        self.calls[module].append(tangent)

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Within it the modules map tangents: call number i by the derivative at call number i."""
        with ExitStack() as stack:
            for module, tangents in self.calls.items():
                stack.enter_context(_mapping(module, iter(tangents)))
            stack.enter_context(AttentionReplay(self._attention.calls))
            yield


def leaves(roots: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The modules whose derivatives are taken as a whole, below `roots`."""
    for root in roots:
        children = list(root.children())
        processor: Any = root.processor if isinstance(root, Attention) else None
        known = isinstance(processor, AttnProcessor2_0)
        if (isinstance(root, _ATOMIC) and not known) or not children:
            yield root
        else:
            yield from leaves(children)


def scale_shifts(roots: Iterable[nn.Module]) -> frozenset[nn.Module]:
    """The layers below `roots` whose output (scale, shift) a ResNet applies outside all modules, as
    a (1 + scale) + shift (Dhariwal & Nichol 2021, adaptive group norm).
    """
    blocks = [m for root in roots for m in root.modules() if isinstance(m, ResnetBlock2D)]
    return frozenset(b.time_emb_proj for b in blocks if b.time_embedding_norm == "scale_shift")


def _scale_without_shift(module: nn.Module, x_B: Tensor) -> Tangent:
    """scale and shift depend on the timestep alone, so a tangent is scaled and not shifted."""
    scale_BC, shift_BC = module.forward(x_B).chunk(2, dim=1)
    both_BC = torch.cat([scale_BC, torch.zeros_like(shift_BC)], dim=1)
    return lambda v_K: both_BC.expand(len(v_K), -1)


@contextmanager
def _mapping(module: nn.Module, tangents: Iterator[Tangent]) -> Iterator[None]:
    module.forward = lambda tangent_K, *_args, **_kwargs: next(tangents)(tangent_K)
    try:
        yield
    finally:
        del module.forward


def _derivative(module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> Tangent:
    """The derivative of one call with respect to its first argument."""
    if isinstance(module, nn.Conv2d) and module.padding_mode == "zeros":
        return lambda v_K: functional.conv2d(
            v_K, module.weight, None, module.stride, module.padding, module.dilation, module.groups
        )
    if isinstance(module, nn.Linear):
        return lambda v_K: functional.linear(v_K, module.weight)
    if isinstance(module, nn.Identity | nn.Dropout):
        return lambda v_K: v_K
    if isinstance(module, nn.SiLU):
        sigmoid = torch.sigmoid(args[0])
        slope = sigmoid * (1 + args[0] * (1 - sigmoid))
        return lambda v_K: v_K * slope
    if isinstance(module, nn.GroupNorm):
        return _group_norm(module, args[0])
    if isinstance(module, nn.LayerNorm):
        return _layer_norm(module, args[0])
    if isinstance(module, GEGLU):
        return _geglu(module, args[0])
    return _forward_mode(module.forward, args, kwargs)


def _group_norm(norm: nn.GroupNorm, x_BCYX: Tensor) -> Tangent:
    """gamma rstd (v - mean(v) - x_hat mean(x_hat v)), means over a group."""
    x_1GM = x_BCYX.reshape(1, norm.num_groups, -1)
    variance_1G1, mean_1G1 = torch.var_mean(x_1GM, dim=2, correction=0, keepdim=True)
    rstd_1G1 = torch.rsqrt(variance_1G1 + norm.eps)
    normal_1GM = (x_1GM - mean_1G1) * rstd_1G1
    gain_C = norm.weight if norm.affine else x_BCYX.new_ones(norm.num_channels)

    def tangent(v_KCYX: Tensor) -> Tensor:
        v_KGM = v_KCYX.reshape(len(v_KCYX), norm.num_groups, -1)
        along_KG1 = (v_KGM * normal_1GM).mean(2, keepdim=True)
        v_KGM = rstd_1G1 * (v_KGM - v_KGM.mean(2, keepdim=True) - normal_1GM * along_KG1)
        shape = (1, -1, *[1] * (v_KCYX.ndim - 2))
        return v_KGM.view_as(v_KCYX) * gain_C.view(shape)

    return tangent


def _layer_norm(norm: nn.LayerNorm, x_BNC: Tensor) -> Tangent:
    """As of a group norm, over the last axes."""
    axes = tuple(range(-len(norm.normalized_shape), 0))
    variance, mean = torch.var_mean(x_BNC, dim=axes, correction=0, keepdim=True)
    rstd = torch.rsqrt(variance + norm.eps)
    normal = (x_BNC - mean) * rstd
    gain = 1.0 if norm.weight is None else norm.weight

    def tangent(v_KNC: Tensor) -> Tensor:
        along = (v_KNC * normal).mean(axes, keepdim=True)
        return rstd * (v_KNC - v_KNC.mean(axes, keepdim=True) - normal * along) * gain

    return tangent


def _geglu(module: GEGLU, x_BNC: Tensor) -> Tangent:
    """Of a gelu(g), (a, g) = W x + b (Shazeer 2020, eq. 6): a' gelu(g) + a gelu'(g) g'."""
    a_BNC, g_BNC = module.proj.forward(x_BNC).chunk(2, dim=-1)
    below_BNC = 0.5 * torch.erfc(-g_BNC / sqrt(2))
    of_a_BNC = functional.gelu(g_BNC)
    of_g_BNC = a_BNC * (below_BNC + g_BNC * torch.exp(-(g_BNC**2) / 2) / sqrt(2 * pi))

    def tangent(v_KNC: Tensor) -> Tensor:
        da_KNC, dg_KNC = functional.linear(v_KNC, module.proj.weight).chunk(2, dim=-1)
        return da_KNC * of_a_BNC + dg_KNC * of_g_BNC

    return tangent


def _forward_mode(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]
) -> Tangent:
    """Any other module by forward-mode AD of that module alone."""
    x_B, *rest = args if args else [kwargs["hidden_states"]]
    rest_kwargs = {k: v for k, v in kwargs.items() if k != "hidden_states"}

    def one(v_B: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward derivative
            tangent_B: Tensor = torch.func.jvp(
                lambda x: forward(x, *rest, **rest_kwargs), (x_B,), (v_B,)
            )[1]
        return tangent_B

    return lambda v_K: torch.func.vmap(one)(v_K[:, None])[:, 0]
