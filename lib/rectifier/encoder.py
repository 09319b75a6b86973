"""The rectifier's global encoder: what the image is and what the network takes it to be, as one
vector.

Shape suffixes: B examples, L channels of the latent, Y, X its size, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn

_GROUPS = 8


class SmallEncoder(nn.Module):
    """Four convolutions, each halving the size, for small images."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        blocks: list[nn.Module] = []
        for inward, outward in zip((channels, *widths), widths, strict=False):
            blocks += [
                nn.Conv2d(inward, outward, 3, stride=2, padding=1),
                nn.GroupNorm(gcd(_GROUPS, outward), outward),
                nn.SiLU(),
            ]
        self.blocks = nn.Sequential(*blocks)
        self.width = widths[-1]

    def forward(self, both_B2LYX: Tensor) -> Tensor:
        """(B, E), the mean over the last map."""
        map_BEYX: Tensor = self.blocks(both_B2LYX)
        return map_BEYX.mean(dim=(2, 3))


class ResNetEncoder(nn.Module):
    """A residual network of transformers with basic blocks: ResNet34 with depths (3, 4, 6, 3) and
    width 64. Its batch norms are group norms here, because each example's kernels must depend on
    that example alone.
    """

    def __init__(self, channels: int, width: int, depths: Sequence[int]) -> None:
        from transformers import ResNetConfig, ResNetModel

        super().__init__()
        config = ResNetConfig(
            num_channels=channels,
            embedding_size=width,
            hidden_sizes=[width * 2**stage for stage in range(len(depths))],
            depths=list(depths),
            layer_type="basic",
        )
        network: Any = ResNetModel(config)
        _replace_batch_norms(network)
        self.network = network
        self.width = width * 2 ** (len(depths) - 1)

    def forward(self, both_B2LYX: Tensor) -> Tensor:
        """(B, E), the pooled output."""
        pooled: Tensor = self.network(both_B2LYX).pooler_output
        return pooled.flatten(1)


def _replace_batch_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(
                module, name, nn.GroupNorm(gcd(_GROUPS, child.num_features), child.num_features)
            )
        else:
            _replace_batch_norms(child)


def timestep_sinusoids(t_B: Tensor, width: int) -> Tensor:
    """(B, width) sines and cosines of timesteps (Vaswani et al. 2017), float32."""
    half = width // 2
    rate_F = torch.exp(-torch.arange(half, device=t_B.device) * (9.21034 / max(1, half - 1)))
    angle_BF = t_B.float()[:, None] * rate_F[None]
    return torch.cat([angle_BF.sin(), angle_BF.cos()], dim=1)
