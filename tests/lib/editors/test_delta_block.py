"""f_t against the published formula, from a file in the published layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lib.directions.asyrp import DirectionFunction, read_asyrp
from lib.editors.delta_block import DeltaBlock
from lib.models.time_embedding import TimeEmbedding
from lib.problems import ConfigProblem

CHANNELS = 512


def time_embedding(width: int = 512, sinusoids: int = 128) -> TimeEmbedding:
    """As large as that of CelebA-HQ's U-Net."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / shape[-1] ** 0.5

    return TimeEmbedding(
        False, 1, normal(width, sinusoids), normal(width), normal(width, width), normal(width)
    )


def published(channels: int = CHANNELS, width: int = 512) -> dict[str, Tensor]:
    """Weights under the names, in the shapes and in the order of Asyrp's DeltaBlock."""
    generator = torch.Generator().manual_seed(6)
    shapes = {
        "conv1.weight": (channels, channels, 1, 1),
        "conv1.bias": (channels,),
        "temb_proj.weight": (channels, width),
        "temb_proj.bias": (channels,),
        "norm2.weight": (channels,),
        "norm2.bias": (channels,),
        "conv2.weight": (channels, channels, 1, 1),
        "conv2.bias": (channels,),
    }
    return {name: torch.randn(s, generator=generator) / 20 for name, s in shapes.items()}


def formula(weights: dict[str, Tensor], h_BCYX: Tensor, temb_BE: Tensor | None) -> Tensor:
    """conv2(SiLU(GN(conv1(h) + Linear(SiLU(temb))))), in float64, with sums and means alone."""
    w = {name: value.double() for name, value in weights.items()}

    def silu(a: Tensor) -> Tensor:
        return a / (1 + torch.exp(-a))

    def pointwise(name: str, a: Tensor) -> Tensor:
        out = torch.einsum("oi,biyx->boyx", w[f"{name}.weight"][:, :, 0, 0], a)
        return out + w[f"{name}.bias"][:, None, None]

    a = pointwise("conv1", h_BCYX.double())
    if temb_BE is not None:
        time_BC = silu(temb_BE.double()) @ w["temb_proj.weight"].T + w["temb_proj.bias"]
        a = a + time_BC[:, :, None, None]
    grouped = a.reshape(len(a), 32, -1)
    centred = grouped - grouped.mean(dim=2, keepdim=True)
    spread = (centred.square().mean(dim=2, keepdim=True) + 1e-6).sqrt()
    b = (centred / spread).view_as(a)
    b = b * w["norm2.weight"][:, None, None] + w["norm2.bias"][:, None, None]
    return pointwise("conv2", silu(b))


@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["plain", "as_small_as_the_norms_epsilon"])
@pytest.mark.parametrize("ignores_time", [False, True])
@torch.no_grad()
def test_a_published_file_gives_the_published_formula_and_loads_into_the_trainable_block(
    tmp_path: Path, ignores_time: bool, scale: float
) -> None:
    weights, time = published(), time_embedding()
    weights |= {n: scale * v for n, v in weights.items() if n.startswith(("conv1", "temb_proj"))}
    optimizer = {"state": {}, "param_groups": [{"lr": 0.5, "params": [0, 1]}]}
    path = tmp_path / "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth"
    torch.save({0: weights, "optimizer": optimizer, "scheduler": {"gamma": 0.5}}, path)
    assert 0 in torch.load(path, weights_only=True)

    f = read_asyrp(str(path), time, ignores_time=ignores_time)
    assert isinstance(f, DirectionFunction)
    block = DeltaBlock(CHANNELS, time, ignores_time=ignores_time)
    block.load_state_dict(dict(f.weights))
    h_BCYX = torch.randn(2, CHANNELS, 4, 4, generator=torch.Generator().manual_seed(7))
    timesteps = (999, 250)
    for t in timesteps:
        temb_1E = None if ignores_time else time.at(t)
        expected = formula(weights, h_BCYX, temb_1E).float()
        torch.testing.assert_close(f.apply(h_BCYX, t), expected, rtol=1e-4, atol=1e-4)
        found = block(h_BCYX, torch.tensor([t, t]))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    each = block(h_BCYX, torch.tensor(timesteps))
    for row, t in enumerate(timesteps):
        alone = f.apply(h_BCYX[row : row + 1], t)[0]
        torch.testing.assert_close(each[row], alone, rtol=1e-4, atol=1e-5)


def test_what_is_trained_is_saved_under_the_published_names_and_shapes() -> None:
    block = DeltaBlock(64, time_embedding(16, 8))
    expected = {name: value.shape for name, value in published(64, 16).items()}
    assert {name: value.shape for name, value in block.state_dict().items()} == expected
    assert {name: p.shape for name, p in block.named_parameters()} == expected


def test_a_fresh_block_gives_zero_and_can_begin_to_learn() -> None:
    block = DeltaBlock(64, time_embedding(16, 8))
    delta = block(torch.randn(2, 64, 3, 3), torch.tensor([10, 900]))
    assert delta.shape == (2, 64, 3, 3)
    assert not delta.any()
    delta.sum().backward()
    assert block.conv2.weight.grad is not None
    assert block.conv2.weight.grad.any()


def test_channels_that_32_groups_cannot_share_are_refused() -> None:
    with pytest.raises(ConfigProblem, match=r"multiple of 32 channels .* has 48"):
        DeltaBlock(48, time_embedding(16, 8))
