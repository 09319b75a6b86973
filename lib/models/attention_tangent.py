"""The derivative of attention in closed form, put in the place of the function that computes it.

Attention is the one nonlinear function of these networks that is no module. While a forward pass is
recorded its arguments are kept; while tangents are passed through the same forward, it is answered
by its derivative there, at about twice its own cost.

Shape suffixes: K tangents, H heads, N queries, M keys, D entries of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

AttentionTangent = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Tangents of queries, keys and values (K, H, N or M, D) to that of the result."""

_MAX_ENTRIES = 2**27
"""Of the attention weights' tangents that are held at a time: half a gigabyte."""


class AttentionRecorder(TorchFunctionMode):
    """Keeps the derivative at every call of attention, in order. The calls are of batch 1."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[AttentionTangent] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Listen, and let the function do its work."""
        given = dict(kwargs or {})
        if func is scaled_dot_product_attention:
            named = dict(zip(("query", "key", "value"), args, strict=False)) | given
            self.calls.append(attention_tangent(named["query"], named["key"], named["value"]))
        return func(*args, **given)


class AttentionReplay(TorchFunctionMode):
    """Answers every call by the derivative at the call of the same number."""

    def __init__(self, calls: Sequence[AttentionTangent]) -> None:
        super().__init__()
        self._calls: Iterator[AttentionTangent] = iter(calls)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The derivative in the place of attention; all else as it is."""
        given = dict(kwargs or {})
        if func is not scaled_dot_product_attention:
            return func(*args, **given)
        named = dict(zip(("query", "key", "value"), args, strict=False)) | given
        return next(self._calls)(named["query"], named["key"], named["value"])


def attention_tangent(q_1HND: Tensor, k_1HMD: Tensor, v_1HMD: Tensor) -> AttentionTangent:
    """Of O = P V, P = softmax(Q K^T / sqrt(D)), at Q, K, V (Vaswani et al. 2017, eq. 1).

    With S' = (Q' K^T + Q K'^T) / sqrt(D) and W = P * S' it is
    O' = W V - rowsum(W) O + P V'.
    """
    scale = 1 / sqrt(q_1HND.shape[-1])
    p_1HNM = torch.softmax(scale * q_1HND @ k_1HMD.mT, dim=-1)
    o_1HND = p_1HNM @ v_1HMD
    chunk = max(1, _MAX_ENTRIES // p_1HNM.numel())

    def tangent(dq_KHND: Tensor, dk_KHMD: Tensor, dv_KHMD: Tensor) -> Tensor:
        parts = []
        for dq, dk, dv in zip(
            dq_KHND.split(chunk), dk_KHMD.split(chunk), dv_KHMD.split(chunk), strict=True
        ):
            w = dq @ k_1HMD.mT
            w += q_1HND @ dk.mT
            w *= scale
            w *= p_1HNM
            parts.append(w @ v_1HMD - w.sum(-1, keepdim=True) * o_1HND + p_1HNM @ dv)
        return torch.cat(parts)

    return tangent
