"""R(x_0, P_t, t), the network that says how each kernel is modulated (Hou et al. 2023, section 3).

The published one has a ResNet34 as encoder and convolutions in its branches; the branches here are
linear, on the encoder's pooled output, and every kernel has one of its own with its own embedding
of time.

Shape suffixes: B examples, L, Y, X of the latent, E embedding, K positions of a kernel, I channels
in, O channels out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.rectifier.encoder import ResNetEncoder, SmallEncoder, timestep_sinusoids
from lib.rectifier.modulation import Factors, KernelShape, kernel_shapes

SMALL, RESNET = "small", "resnet"
_SINUSOIDS = 64
_FIRST_STD = 1.0


@dataclass(frozen=True, slots=True)
class RectifierOptions:
    """From which a rectifier is built again."""

    encoder: str = SMALL
    width: int = 32
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Of a resnet."""
    branch_width: int = 32

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"depths": list(self.depths)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RectifierOptions:
        """Of plain values; raises ConfigProblem where they are others."""
        try:
            return cls(**{**values, "depths": tuple(values["depths"])})
        except (TypeError, KeyError) as error:
            raise ConfigProblem(f"expected the architecture of a rectifier: {error}") from error


class Branch(nn.Module):
    """The factors of one convolution. At first Delta is zero, with a gradient: `out` begins at
    zero, `in` does not.
    """

    def __init__(self, shape: KernelShape, embedding: int, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.image = nn.Linear(embedding, width)
        self.time = nn.Linear(_SINUSOIDS, width)
        self.hidden = nn.Linear(width, width)
        self.to_in = nn.Linear(width, shape.positions * shape.channels_in)
        self.to_out = nn.Linear(width, shape.positions * shape.channels_out)
        nn.init.normal_(torch.as_tensor(self.to_in.bias), std=_FIRST_STD)
        nn.init.zeros_(self.to_out.weight)
        nn.init.zeros_(torch.as_tensor(self.to_out.bias))

    def forward(self, embedding_BE: Tensor, sinusoids_BF: Tensor) -> Factors:
        """See `Factors`."""
        joined_BW = silu(self.image(embedding_BE) + self.time(sinusoids_BF))
        hidden_BW = silu(self.hidden(joined_BW))
        k = self.shape.positions
        return Factors(
            self.to_in(hidden_BW).unflatten(1, (k, self.shape.channels_in)),
            self.to_out(hidden_BW).unflatten(1, (k, self.shape.channels_out)),
        )


class Rectifier(nn.Module):
    """One encoder, and a branch for every convolution of the mid and up blocks of the denoiser's
    U-Net.

    Raises:
        ConfigProblem: the options name no encoder.
    """

    def __init__(self, denoiser: UNetDenoiser, options: RectifierOptions) -> None:
        super().__init__()
        self.options = options
        channels = 2 * denoiser.latent_shape[0]
        if options.encoder == SMALL:
            self.encoder: SmallEncoder | ResNetEncoder = SmallEncoder(channels, options.width)
        elif options.encoder == RESNET:
            self.encoder = ResNetEncoder(channels, options.width, options.depths)
        else:
            raise ConfigProblem(f"expected an encoder small or resnet, got {options.encoder!r}")
        self.names = tuple(kernel_shapes(denoiser.network))
        self.branches = nn.ModuleList(
            Branch(shape, self.encoder.width, options.branch_width)
            for shape in kernel_shapes(denoiser.network).values()
        )

    def forward(self, x0_BLYX: Tensor, p_BLYX: Tensor, t_B: Tensor) -> dict[str, Factors]:
        """The factors of every convolution, by its name. `p_BLYX` is P_t of the frozen network."""
        embedding_BE = self.encoder(torch.cat([x0_BLYX, p_BLYX], dim=1))
        sinusoids_BF = timestep_sinusoids(t_B, _SINUSOIDS).to(embedding_BE)
        found = (branch(embedding_BE, sinusoids_BF) for branch in self.branches)
        return dict(zip(self.names, found, strict=True))
