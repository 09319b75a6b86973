"""Other weights of a U-Net: what an artifact restores, and that the frozen one is left alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.editors.tuned_network import Tuning, tunable_copy, tuned_weights, with_weights
from lib.problems import ConfigProblem

WHOLE = Tuning("whole")


@pytest.fixture(name="unet")
def frozen_network(backbones: ModuleType) -> Any:
    return backbones.unet(attention_head_dim=8).eval().requires_grad_(False)


def content(network: Any) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


def trained(network: Any, size: float) -> Any:
    """As after a training: what can be trained has moved, in many steps, since what one addition
    makes of a float32 can be taken back exactly more often than not.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            for _ in range(16 if parameter.requires_grad else 0):
                parameter += size / 4 * torch.randn(parameter.shape, generator=generator)
    return network.eval()


@torch.no_grad()
def answer(network: Any) -> Tensor:
    x_BLYX = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    return network(x_BLYX, torch.tensor([300, 700])).sample


@pytest.mark.parametrize("size", [1e-3, 1.0])
def test_the_artifact_of_a_whole_network_restores_it_to_the_last_bit(
    unet: Any, size: float
) -> None:
    before = content(unet)
    copied = tunable_copy(unet, WHOLE)
    assert all(p.requires_grad for p in copied.parameters())
    tuned = trained(copied, size)
    artifact = {n: v.clone() for n, v in tuned_weights(tuned, unet, WHOLE).items()}
    restored = with_weights(unet, WHOLE, artifact, "e")
    assert content(restored) == content(tuned)
    assert torch.equal(answer(restored), answer(tuned))
    assert not any(p.requires_grad for p in restored.parameters())
    assert content(unet) == before
    assert (answer(unet) - answer(tuned)).abs().max() > size / 10


def test_weights_that_did_not_change_are_not_kept(unet: Any) -> None:
    tuned = tunable_copy(unet, WHOLE)
    assert tuned_weights(tuned, unet, WHOLE) == {}
    with torch.no_grad():
        tuned.conv_out.bias += 1
    artifact = tuned_weights(tuned, unet, WHOLE)
    assert list(artifact) == ["conv_out.bias"]
    assert content(with_weights(unet, WHOLE, artifact, "e")) == content(tuned)


def test_weights_of_another_network_are_refused(unet: Any) -> None:
    artifact = {name: torch.zeros_like(p) for name, p in unet.named_parameters()}
    for name, value in {
        "conv_in.gain": torch.zeros(3),
        "conv_in.weight": torch.zeros(16, 4, 3, 3),
        "conv_in.bias": torch.zeros(1),  # which would spread over all
    }.items():
        with pytest.raises(ConfigProblem, match=rf"editor e: .*odd: \['{name}'\]"):
            with_weights(unet, WHOLE, artifact | {name: value}, "editor e")


LORA = [
    Tuning("lora", rank=2, scale=0.5, layers=layers, dropout=0.1)
    for layers in ("attention", "convolutions", "all")
]


@pytest.mark.parametrize("tuning", LORA, ids=lambda tuning: tuning.layers)
def test_fresh_updates_change_nothing_and_trained_ones_come_back_from_the_artifact(
    unet: Any, tuning: Tuning
) -> None:
    pytest.importorskip("peft")
    before, plain = content(unet), answer(unet)
    tuned = tunable_copy(unet, tuning).eval()
    assert torch.equal(answer(tuned), plain)
    trained(tuned, 0.2)
    artifact = {n: v.clone() for n, v in tuned_weights(tuned, unet, tuning).items()}
    restored = with_weights(unet, tuning, artifact, "e").eval()
    torch.testing.assert_close(answer(restored), answer(tuned), rtol=1e-4, atol=1e-4)
    assert content(restored).keys() == before.keys(), "the updates are merged"
    assert (answer(tuned) - plain).abs().max() > 1e-2
    assert content(unet) == before
    assert not any(p.requires_grad for p in restored.parameters())


@pytest.mark.parametrize("tuning", LORA, ids=lambda tuning: tuning.layers)
def test_only_pairs_of_low_rank_matrices_of_the_chosen_layers_are_trained_and_kept(
    unet: Any, tuning: Tuning
) -> None:
    pytest.importorskip("peft")
    tuned = tunable_copy(unet, tuning)
    free = {name for name, p in tuned.named_parameters() if p.requires_grad}
    artifact = tuned_weights(tuned, unet, tuning)
    assert len(free) == len(artifact)
    layers: dict[str, set[str]] = {}
    for name, value in artifact.items():
        layer, _, part = name.partition(".lora_")
        layers.setdefault(layer, set()).add(part)
        assert value.shape[0 if part == "A.weight" else 1] == 2
    assert all(parts == {"A.weight", "B.weight"} for parts in layers.values())
    own = dict(unet.named_modules())
    linear = {name for name, m in own.items() if isinstance(m, torch.nn.Linear)}
    wanted = {
        "attention": {name for name in linear if "attentions" in name},
        "convolutions": {n for n, m in own.items() if isinstance(m, torch.nn.Conv2d)},
    }
    wanted["all"] = linear | wanted["convolutions"]
    assert set(layers) == wanted[tuning.layers]
    assert len(wanted["attention"]) == 4


def test_an_update_is_scale_times_b_a_of_the_artifact(unet: Any) -> None:
    pytest.importorskip("peft")
    tuning = LORA[0]
    tuned = trained(tunable_copy(unet, tuning), 0.2)
    artifact = tuned_weights(tuned, unet, tuning)
    by_hand = tunable_copy(unet, WHOLE).requires_grad_(False)
    for name in [n.removesuffix(".lora_A.weight") for n in artifact if "lora_A" in n]:
        update = artifact[f"{name}.lora_B.weight"] @ artifact[f"{name}.lora_A.weight"]
        by_hand.get_submodule(name).weight += 0.5 * update
    restored = with_weights(unet, tuning, artifact, "e").eval()
    torch.testing.assert_close(answer(restored), answer(by_hand), rtol=1e-5, atol=1e-5)


def test_updates_of_another_network_are_refused(unet: Any) -> None:
    pytest.importorskip("peft")
    tuning = LORA[0]
    artifact = tuned_weights(tunable_copy(unet, tuning), unet, tuning)
    name = next(iter(artifact))
    missing = {n: value for n, value in artifact.items() if n != name}
    wide = {name: torch.zeros(2, 7)}
    elsewhere = {"conv_in.lora_A.weight": torch.zeros(2, 3, 3, 3)}
    for wrong in (missing, artifact | wide, artifact | elsewhere, {}):
        with pytest.raises(ConfigProblem, match=r"editor e: .*updates"):
            with_weights(unet, tuning, wrong, "editor e")


def test_layers_that_the_network_lacks_are_refused(backbones: ModuleType) -> None:
    pytest.importorskip("peft")
    unet = backbones.unet(add_attention=False)
    with pytest.raises(ConfigProblem, match=r"no layers of attention"):
        tunable_copy(unet, LORA[0])
