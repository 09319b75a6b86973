"""The network's features, and that they follow from the image alone."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lib.masks.features import FeatureReader, content_seed, shared_block
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.models.conditioning import Conditioning
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem

CPU = torch.device("cpu")
ALPHAS = [1 - t / 1000 for t in range(1000)]


@pytest.fixture(name="denoiser")
def tiny(tiny_checkpoint: Path) -> UNetDenoiser:
    found = load_denoiser(open_checkpoint(str(tiny_checkpoint)), CPU, "after")
    assert isinstance(found, UNetDenoiser)
    return found


def images(count: int = 3) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, 16, 16), generator=random) / 127.5 - 1


def test_features_are_what_the_blocks_give_in_a_whole_forward(denoiser: UNetDenoiser) -> None:
    x_BLYX = torch.randn(2, 3, 16, 16)
    seen: dict[int, torch.Tensor] = {}
    handles = [
        block.register_forward_hook(lambda _m, _a, out, n=number: seen.__setitem__(n, out))
        for number, block in enumerate(denoiser._unet.up_blocks)  # noqa: SLF001
    ]
    whole = denoiser.predict(x_BLYX, 300)
    for handle in handles:
        handle.remove()
    numbers = list(range(denoiser.up_blocks))
    for found, number in zip(denoiser.features(x_BLYX, 300, numbers), numbers, strict=True):
        assert torch.equal(found, seen[number])
    assert torch.equal(denoiser.features(x_BLYX, 300, [0])[0], seen[0])
    assert torch.equal(denoiser.predict(x_BLYX, 300), whole), "the network is itself again"


def test_an_image_is_seen_alike_wherever_it_stands(denoiser: UNetDenoiser) -> None:
    read = FeatureReader(denoiser, ALPHAS, [120, 300], [0])
    image_BCHW = images()
    there, alone = read(image_BCHW), read(image_BCHW[2:])
    assert [m.shape[0] for m in there] == [3, 3, 3]
    for of_three, of_one in zip(there, alone, strict=True):
        torch.testing.assert_close(of_three[2:], of_one, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(there[0], there[1]), "every timestep is another look"
    assert torch.equal(there[-1], image_BCHW)
    assert read.evaluations == 2


def test_the_noise_follows_from_the_content() -> None:
    one, other, _ = images()
    assert content_seed(one) == content_seed(one.clone()) != content_seed(other)
    assert content_seed(one) == content_seed((one + 1e-6).clamp(-1, 1))
    assert 0 <= content_seed(one) < 2**63


def test_blocks_and_timesteps_that_the_model_has_not_are_refused(denoiser: UNetDenoiser) -> None:
    with pytest.raises(ConfigProblem, match="numbers below"):
        FeatureReader(denoiser, ALPHAS, [120], [denoiser.up_blocks])
    with pytest.raises(ConfigProblem, match="timesteps below 1000"):
        FeatureReader(denoiser, ALPHAS, [1000], [0])


def test_the_block_is_chosen_by_the_size_of_its_map() -> None:
    embedded = load_denoiser(open_checkpoint("embedded"), CPU, "after")
    assert shared_block(embedded) == 1
    assert embedded.features(torch.zeros(1, 3, 64, 64), 0, [1])[0].shape == (1, 96, 32, 32)


@pytest.mark.parametrize("kind", ["stable-diffusion", "latent"])
def test_latent_models_have_features_too(backbone: Callable[[str], Path], kind: str) -> None:
    checkpoint = open_checkpoint(str(backbone(kind)))
    guided = Conditioning("face", "", 3.0) if kind == "stable-diffusion" else Conditioning()
    denoiser = load_denoiser(checkpoint, CPU, "after", guided)
    read = FeatureReader(denoiser, ALPHAS, [120], [shared_block(denoiser)])
    size = denoiser.image_size
    feature, colour = read(torch.zeros(2, 3, size, size))
    assert feature.shape[0] == 2
    assert colour.shape == (2, 3, size, size)
    assert torch.isfinite(feature).all()
