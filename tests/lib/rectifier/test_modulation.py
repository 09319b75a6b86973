"""Modulated convolutions against a sum over kernel positions written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lib.models.unet_denoiser import UNetDenoiser
from lib.rectifier.modulation import (
    Factors,
    by_examples,
    by_groups,
    kernel_shapes,
    modulated,
    modulated_convolutions,
    modulation,
)


def factors(conv: nn.Conv2d, batch: int, seed: int = 1) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    positions = conv.kernel_size[0] * conv.kernel_size[1]
    kind = {"generator": generator, "dtype": conv.weight.dtype}
    return Factors(
        torch.randn(batch, positions, conv.in_channels, **kind),
        torch.randn(batch, positions, conv.out_channels, **kind),
    )


def written_out(conv: nn.Conv2d, found: Factors, x_BIYX: Tensor) -> np.ndarray:
    """Without the bias: each example by itself, position by position."""
    theta = conv.weight.detach().numpy()
    rows, columns = conv.kernel_size
    y_pad, x_pad = rows // 2, columns // 2
    height, width = x_BIYX.shape[2:]
    outs = []
    for b, image in enumerate(x_BIYX.numpy()):
        padded = np.pad(image, ((0, 0), (y_pad, y_pad), (x_pad, x_pad)))
        out = np.zeros((conv.out_channels, height, width))
        for row in range(rows):
            for column in range(columns):
                k = row * columns + column
                delta = np.outer(found.out_BKO[b, k].numpy(), found.in_BKI[b, k].numpy())
                kernel = theta[:, :, row, column] * (1 + delta)
                seen = padded[:, row : row + height, column : column + width]
                out += np.einsum("oi,iyx->oyx", kernel, seen)
        outs.append(out)
    return np.stack(outs)


@pytest.mark.parametrize("compute", [by_groups, by_examples])
@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (5, 3)])
def test_every_example_is_convolved_with_theta_times_one_plus_its_own_delta(
    compute: Callable[..., Tensor], kernel: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    padding = (kernel[0] // 2, kernel[1] // 2)
    conv = nn.Conv2d(4, 6, kernel, padding=padding).double()
    x_BIYX = torch.randn(3, 4, 7, 5, dtype=torch.float64)
    found = factors(conv, 3)
    expected = written_out(conv, found, x_BIYX)
    with torch.no_grad():
        np.testing.assert_allclose(compute(conv, found, x_BIYX), expected, atol=1e-12)
        bias = conv.bias.numpy()[:, None, None]
        np.testing.assert_allclose(modulated(conv, found, x_BIYX), expected + bias, atol=1e-12)


def test_without_a_bias_none_is_added() -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, bias=False).double()
    x_BIYX, found = torch.randn(2, 4, 5, 5, dtype=torch.float64), factors(conv, 2)
    with torch.no_grad():
        expected = written_out(conv, found, x_BIYX)
        np.testing.assert_allclose(modulated(conv, found, x_BIYX), expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["unet", "conditional_unet"])
def test_the_convolutions_are_those_of_the_mid_and_up_blocks(
    backbones: ModuleType, kind: str
) -> None:
    unet = getattr(backbones, kind)()
    found = modulated_convolutions(unet)
    decoder = {
        name: module
        for name, module in unet.named_modules()
        if name.startswith(("mid_block.", "up_blocks.")) and isinstance(module, nn.Conv2d)
    }
    assert found == decoder, "all of them, and nothing of the encoder half or the ends"
    assert len(found) > 10
    for name, shape in kernel_shapes(unet).items():
        out, inward, rows, columns = found[name].weight.shape
        assert shape == (rows * columns, inward, out)


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2, "padding": 1},
        {"padding": 0},
        {"padding": 2, "dilation": 2},
        {"padding": 1, "groups": 2},
        {"padding": 1, "padding_mode": "circular"},
        {"padding": "same"},
    ],
)
def test_convolutions_of_another_kind_are_left_as_they_are(
    backbones: ModuleType, options: dict[str, object]
) -> None:
    unet = backbones.unet()
    before = set(modulated_convolutions(unet))
    unet.mid_block.resnets[0].conv1 = nn.Conv2d(32, 32, 3, **options)
    assert before - set(modulated_convolutions(unet)) == {"mid_block.resnets.0.conv1"}


@torch.no_grad()
def test_the_network_is_itself_again_after_a_scope_and_after_an_exception_in_it(
    made_denoiser: Callable[..., UNetDenoiser],
) -> None:
    network = made_denoiser().network
    convolutions = modulated_convolutions(network)
    found = {name: factors(conv, 2) for name, conv in convolutions.items()}
    before = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    x_BLYX = torch.randn(2, 3, 16, 16)
    plain = network(x_BLYX, 300).sample
    with modulation(convolutions, found):
        inside = network(x_BLYX, 300).sample
    assert (inside - plain).abs().max() > 1e-2
    assert torch.equal(network(x_BLYX, 300).sample, plain)
    with pytest.raises(ZeroDivisionError), modulation(convolutions, found):
        raise ZeroDivisionError
    with pytest.raises(KeyError), modulation(convolutions, dict(list(found.items())[:3])):
        pytest.fail("the scope begins without the factors of some convolutions")
    assert torch.equal(network(x_BLYX, 300).sample, plain)
    assert not any("forward" in vars(module) for module in network.modules())
    after = {name: value.numpy().tobytes() for name, value in network.state_dict().items()}
    assert after == before
