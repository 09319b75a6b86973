"""LPIPS (Zhang et al. 2018) from the optional package `lpips`, which needs torchvision.

Shape suffixes: B batch, C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor

from lib.problems import ModelProblem

Network = Literal["alex", "vgg", "squeeze"]
_SMALLEST = 32
"""Pixels a side: the deepest features of a smaller image are empty."""


def lpips_version() -> str:
    """Of the package, with torchvision's, which brings the weights: what decides the distances.

    Raises:
        ModelProblem: one of them is not installed.
    """
    missing = [name for name in ("lpips", "torchvision") if find_spec(name) is None]
    if missing:
        raise ModelProblem(
            f"LPIPS needs the package {' and the package '.join(missing)}, which is not installed;"
            " install deltah with its extra, deltah[lpips], or use another measure (similarity"
            " runs without them)"
        )
    return f"lpips {metadata.version('lpips')}, torchvision {metadata.version('torchvision')}"


def load_lpips_network(
    net: Network, device: torch.device, instead: str
) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS between two batches of images in [-1, 1], (B,) float32; `instead` ends the message
    where it cannot be had.

    Raises:
        ModelProblem: the package or its weights cannot be loaded.
    """
    try:
        network: Any = import_module("lpips").LPIPS(net=net, verbose=False).to(device).eval()
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelProblem(
            f"the package lpips and its weights ({net}) cannot be loaded ({error}); expected them"
            f" to be installed (deltah[lpips]), {instead}"
        ) from error

    @torch.no_grad()
    def between(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
        if min(a_BCHW.shape[2:]) < _SMALLEST:
            raise ModelProblem(
                f"LPIPS needs images of {_SMALLEST} x {_SMALLEST} pixels or more, got"
                f" {a_BCHW.shape[3]} x {a_BCHW.shape[2]}"
            )
        distance_B111: Tensor = network(a_BCHW.to(device), b_BCHW.to(device))
        return distance_B111.flatten()

    return between
