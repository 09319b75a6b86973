"""What the rectifier's encoders must not do: look at other examples."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lib.rectifier.encoder import ResNetEncoder, SmallEncoder, timestep_sinusoids


def encoder(kind: str) -> SmallEncoder | ResNetEncoder:
    torch.manual_seed(0)
    return SmallEncoder(6, 8) if kind == "small" else ResNetEncoder(6, 8, (1, 1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("kind", "width"), [("small", 32), ("resnet", 16)])
@torch.no_grad()
def test_each_example_has_an_answer_of_its_own(kind: str, width: int, training: bool) -> None:
    network = encoder(kind).train(training)
    both_BCYX = torch.randn(3, 6, 16, 16)
    whole_BE = network(both_BCYX)
    assert whole_BE.shape == (3, width) == (3, network.width)
    for row, example in enumerate(both_BCYX):
        torch.testing.assert_close(network(example[None])[0], whole_BE[row], rtol=1e-5, atol=1e-6)
    assert (whole_BE[0] - whole_BE[1]).abs().max() > 1e-3
    others_BCYX = torch.cat([both_BCYX[:1], 5 * torch.randn(2, 6, 16, 16)])
    torch.testing.assert_close(network(others_BCYX)[0], whole_BE[0], rtol=1e-5, atol=1e-6)


def test_the_residual_network_has_the_depths_that_were_asked_for_and_no_batch_norms() -> None:
    network = ResNetEncoder(6, 8, (1, 2, 1))
    stages = network.network.encoder.stages
    assert [len(stage.layers) for stage in stages] == [1, 2, 1]
    assert network.width == 32
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("width", [1, 12, 20])
@torch.no_grad()
def test_any_width_can_be_shared_by_groups(width: int) -> None:
    both_BCYX = torch.randn(2, 6, 16, 16)
    assert SmallEncoder(6, width)(both_BCYX).shape == (2, 4 * width)
    assert ResNetEncoder(6, width, (1, 1))(both_BCYX).shape == (2, 2 * width)


def test_sinusoids_have_the_frequencies_from_one_to_a_ten_thousandth() -> None:
    found_BF = timestep_sinusoids(torch.tensor([0, 7]), 8).double()
    rates = [10000 ** (-i / 3) for i in range(4)]
    angles = torch.tensor([7 * rate for rate in rates], dtype=torch.float64)
    expected_F = torch.cat([angles.sin(), angles.cos()])
    torch.testing.assert_close(found_BF[1], expected_F, rtol=0, atol=1e-5)
    assert found_BF[0].tolist() == [0] * 4 + [1] * 4
