"""f_t, the small network that Asyrp learns for an attribute (Kwon et al. 2023, section 3.2), in its
published architecture, so that published files load into it and what is trained here can be read
by Asyrp's own code.

conv1x1(h) + linear(SiLU(temb)) -> GroupNorm -> SiLU -> conv1x1. Two forms are published: that of Ho
et al.'s U-Net, which is trained here, and that of improved and guided diffusion.

Shape suffixes: B batch, C channels, Y, X of h; E time embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, linear, silu

from lib.models.time_embedding import TimeEmbedding
from lib.problems import ConfigProblem

GROUPS = 32
DDPM_PARTS = ("conv1", "temb_proj", "norm2", "conv2")
IMPROVED_PARTS = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3")
Weights = Mapping[str, Tensor]


def delta_h(weights: Weights, h_BCYX: Tensor, temb_BE: Tensor | None) -> Tensor:
    """f_t(h) of published weights, of either form; `temb_BE` is (1, E) or (B, E), None for a
    network that was trained without the time embedding.
    """
    w = weights
    if "conv1.weight" in w:
        a_BCYX = conv2d(h_BCYX, w["conv1.weight"], w["conv1.bias"])
        time, norm, last, eps = "temb_proj", "norm2", "conv2", 1e-6
    else:
        normal_BCYX = group_norm(h_BCYX, GROUPS, w["in_layers.0.weight"], w["in_layers.0.bias"])
        a_BCYX = conv2d(silu(normal_BCYX), w["in_layers.2.weight"], w["in_layers.2.bias"])
        time, norm, last, eps = "emb_layers.1", "out_layers.0", "out_layers.3", 1e-5
    if temb_BE is not None:
        time_BC = linear(silu(temb_BE), w[f"{time}.weight"], w[f"{time}.bias"])
        a_BCYX = a_BCYX + time_BC[:, :, None, None]
    b_BCYX = group_norm(a_BCYX, GROUPS, w[f"{norm}.weight"], w[f"{norm}.bias"], eps)
    return conv2d(silu(b_BCYX), w[f"{last}.weight"], w[f"{last}.bias"])


class DeltaBlock(nn.Module):
    """f_t of Ho et al.'s form, under the published names. The last convolution begins at zero, so
    that the training begins at the unedited image.

    Raises:
        ConfigProblem: h has a number of channels that 32 groups cannot share.
    """

    def __init__(self, channels: int, time: TimeEmbedding, *, ignores_time: bool = False) -> None:
        super().__init__()
        if channels % GROUPS:
            raise ConfigProblem(
                f"editor.kind: direction_fn needs a multiple of {GROUPS} channels of h, and this"
                f" model has {channels}; expected delta_h"
            )
        self.time = time
        """Frozen, of the U-Net."""
        self.ignores_time = ignores_time
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.temb_proj = nn.Linear(time.width, channels)
        self.norm2 = nn.GroupNorm(GROUPS, channels, eps=1e-6)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(torch.as_tensor(self.conv2.bias))

    def forward(self, h_BCYX: Tensor, t_B: Tensor) -> Tensor:
        """(B, C, Y, X), in units of h."""
        temb_BE = None if self.ignores_time else self.time.at(t_B).to(h_BCYX)
        return delta_h(dict(self.named_parameters()), h_BCYX, temb_BE)
