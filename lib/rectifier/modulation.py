"""Convolutions with kernels theta (1 + Delta) of each example's own, in the place of frozen ones;
no weight is changed.

Delta is separable (Hou et al. 2023): at kernel position k, Delta[o, i] = out[k, o] in[k, i].

Shape suffixes: B examples, K positions of a kernel, I channels in, O channels out, Y, X of a map.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


class Factors(NamedTuple):
    """Of one convolution."""

    in_BKI: Tensor
    out_BKO: Tensor


class KernelShape(NamedTuple):
    """Of one convolution."""

    positions: int
    channels_in: int
    channels_out: int


def modulated_convolutions(unet: Any) -> dict[str, nn.Conv2d]:
    """All convolutions of a diffusers U-Net's mid and up blocks, by name, in its own order; those
    with a stride or of another kind of padding are left as they are.
    """
    return {
        name: module
        for root in ("mid_block", "up_blocks")
        for name, module in getattr(unet, root).named_modules(prefix=root)
        if isinstance(module, nn.Conv2d) and _is_plain(module)
    }


def kernel_shapes(unet: Any) -> dict[str, KernelShape]:
    """Of the modulated convolutions."""
    return {
        name: KernelShape(
            conv.kernel_size[0] * conv.kernel_size[1], conv.in_channels, conv.out_channels
        )
        for name, conv in modulated_convolutions(unet).items()
    }


def modulated(conv: nn.Conv2d, factors: Factors, x_BIYX: Tensor) -> Tensor:
    """The convolution of each example with its own kernel."""
    found = by_groups if x_BIYX.is_cuda else by_examples
    out_BOYX = found(conv, factors, x_BIYX)
    return out_BOYX if conv.bias is None else out_BOYX + conv.bias[:, None, None]


def by_groups(conv: nn.Conv2d, factors: Factors, x_BIYX: Tensor) -> Tensor:
    """Without the bias, as one grouped convolution over the batch, which is fast on GPUs alone."""
    kernel_BOI = kernels(conv, factors).flatten(0, 1)
    wide = x_BIYX.reshape(1, -1, *x_BIYX.shape[2:])
    out = conv2d(wide, kernel_BOI, padding=conv.padding, groups=len(x_BIYX))
    return out.view(len(x_BIYX), -1, *out.shape[2:])


def by_examples(conv: nn.Conv2d, factors: Factors, x_BIYX: Tensor) -> Tensor:
    """The same, example by example, which is fast on CPUs."""
    pairs = zip(x_BIYX.split(1), kernels(conv, factors), strict=True)
    return torch.cat([conv2d(x_1IYX, kernel, padding=conv.padding) for x_1IYX, kernel in pairs])


def kernels(conv: nn.Conv2d, factors: Factors) -> Tensor:
    """theta (1 + Delta) of every example, (B, O, I, rows, columns)."""
    theta_OIK = conv.weight.flatten(2)
    delta_BOIK = torch.einsum("bko,bki->boik", factors.out_BKO, factors.in_BKI)
    kernel_BOIK = theta_OIK * (1 + delta_BOIK.to(theta_OIK.dtype))
    return kernel_BOIK.view(-1, *conv.weight.shape)


def _is_plain(conv: nn.Conv2d) -> bool:
    """Whether its output is as large as its input, each side padded with zeros alike."""
    same = all(2 * p == k - 1 for p, k in zip(_sides(conv), conv.kernel_size, strict=True))
    plain = conv.stride == (1, 1) and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    return same and plain and conv.groups == 1


def _sides(conv: nn.Conv2d) -> tuple[int, int]:
    if isinstance(conv.padding, str):
        return (-1, -1)
    return (conv.padding[0], conv.padding[1])


@contextmanager
def modulation(
    convolutions: Mapping[str, nn.Conv2d], factors: Mapping[str, Factors]
) -> Iterator[None]:
    """A scope in which the convolutions compute with these factors; they are themselves again
    afterwards, also after an exception.
    """
    with ExitStack() as stack:
        for name, conv in convolutions.items():
            stack.enter_context(_computing(conv, partial(modulated, conv, factors[name])))
        yield


@contextmanager
def _computing(module: nn.Module, forward: Any) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward
