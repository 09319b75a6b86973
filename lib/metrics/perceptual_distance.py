"""How different two images look: LPIPS where it is installed, else a measure without weights.

Shape suffixes: B batch, C, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from lib.metrics.lpips_network import load_lpips_network
from lib.metrics.similarity import WINDOW, ssim

_SCALES = 3


@dataclass(frozen=True, slots=True)
class PerceptualDistance:
    """A measure with the distances at which Asyrp's rule cuts."""

    name: str
    between: Callable[[Tensor, Tensor], Tensor]
    """Two batches (B, C, H, W) in [-1, 1] -> (B,)."""
    edit: float
    """Of the image and P_t where editing may end, for a cosine of 1."""
    boost: float
    """Of the image and x_t where boosting may begin."""


def perceptual_distance(name: str, device: torch.device) -> PerceptualDistance:
    """`lpips`, `ssim`, or `auto`: the first if the package is installed.

    LPIPS (AlexNet; Zhang et al. 2018) has the thresholds of Asyrp (Kwon et al. 2023, section 3.3),
    0.33 and 1.2. Those of ssim are our own: with them the embedded model is cut where Asyrp's
    models are, near T/2 and T/6.

    Raises:
        ModelProblem: LPIPS is asked for or installed, but cannot be loaded.
    """
    if name == "ssim" or (name == "auto" and find_spec("lpips") is None):
        return PerceptualDistance("ssim", structural_distance, edit=0.6, boost=0.1)
    between = load_lpips_network("alex", device, "or `measure: ssim` in edit.window_rule")
    return PerceptualDistance("lpips-alex", between, edit=0.33, boost=1.2)


def structural_distance(a_BCHW: Tensor, b_BCHW: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004: Gaussian window of 1.5 pixels), averaged over the image, its
    half and its quarter size, as far as the window fits into them: 0 for equal images, about 1 for
    unrelated ones. (B,) float32.
    """
    distances: list[Tensor] = []
    for scale in range(_SCALES):
        if scale:
            a_BCHW, b_BCHW = avg_pool2d(a_BCHW, 2), avg_pool2d(b_BCHW, 2)
        if min(a_BCHW.shape[2:]) < WINDOW and distances:
            break
        distances.append(1 - ssim(a_BCHW, b_BCHW))
    return torch.stack(distances).mean(0)
