"""The classifier's objective against formulas written out with transformers' own losses, and finite
differences in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lib.demo import regressor
from lib.demo.faces import FACTORS
from lib.models.checkpoint import EMBEDDED
from lib.models.classifier_network import ClassifierNetwork, load_differentiable_classifier
from lib.models.image_classifier import load_classifier
from lib.models.image_preprocessing import Preprocessing
from lib.objectives.attribute import Attribute
from lib.objectives.prediction import Prediction
from lib.objectives.wishes import By, To
from lib.problems import ConfigProblem

CPU = torch.device("cpu")
NAMES = {"id2label": {0: "smile", 1: "hat", 2: "beard"}}


def vit(**config: Any) -> torch.nn.Module:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return ViTForImageClassification(
        ViTConfig(**sizes, intermediate_size=16, image_size=32, patch_size=8, **config)
    )


def resnet(**config: Any) -> torch.nn.Module:
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **config)
    )
    model.train()(torch.randn(8, 3, 32, 32))
    return model


def saved(folder: Path, build: Any = vit, **config: Any) -> Path:
    torch.manual_seed(0)
    model = build(**NAMES, **config)
    for name, value in model.named_parameters():
        if "classifier" in name:
            torch.nn.init.normal_(value, std=0.5)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def smooth(side: int, seed: int = 0, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise_BCHW = torch.rand(count, 3, 5, 5, generator=generator) * 1.6 - 0.8
    picture_BCHW = torch.nn.functional.interpolate(noise_BCHW, (side, side), mode="bilinear")
    return ((picture_BCHW + 1) * 127.5).round() / 127.5 - 1


def prediction(side: int, dtype: torch.dtype = torch.float64) -> Prediction:
    a, b, c = (smooth(side, seed).to(dtype) for seed in (1, 2, 3))
    return Prediction(a, b, c)


def agrees_with_differences(loss: Callable[[Prediction], Tensor], base: Prediction) -> None:
    image_BCHW = base.edited_BCHW.clone().requires_grad_()
    loss_B = loss(Prediction(image_BCHW, base.plain_BCHW, base.image_BCHW))
    assert loss_B.shape == (len(image_BCHW),)
    (gradient_BCHW,) = torch.autograd.grad(loss_B.sum(), image_BCHW)
    step = 1e-5
    for seed in range(3):
        generator = torch.Generator().manual_seed(100 + seed)
        along_BCHW = torch.randn(image_BCHW.shape, generator=generator, dtype=torch.float64)
        ends = []
        for sign in (1, -1):
            moved_BCHW = image_BCHW.detach() + sign * step * along_BCHW
            ends.append(loss(Prediction(moved_BCHW, base.plain_BCHW, base.image_BCHW)))
        slope_B = (gradient_BCHW * along_BCHW).flatten(1).sum(1)
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope_B, rtol=1e-4, atol=1e-8)
        assert float(slope_B.abs().max()) > 1e-5, "a slope of zero would agree with anything"


def double_network(model: Any, answer: Any) -> ClassifierNetwork:
    model = model.double().eval().requires_grad_(False)
    like = next(model.parameters())
    mean_CHW, std_CHW = like.new_full((3, 1, 1), 0.4), like.new_full((3, 1, 1), 0.3)
    pixels = Preprocessing(mean_CHW, std_CHW, (32, 32), "bilinear", None)
    names = ("smile", "hat", "beard")
    return ClassifierNetwork(names, answer, lambda x: model(pixel_values=pixels(x)).logits, like)


@pytest.mark.parametrize("build", [vit, resnet])
@pytest.mark.parametrize(
    ("answer", "wish"),
    [
        ("single_label", To(1.0)),
        ("single_label", To(0.0)),
        ("multi_label", To(1.0)),
        ("multi_label", To(0.25)),
        ("regression", By(0.7)),
        ("regression", To(-0.4)),
    ],
)
def test_the_gradient_is_the_central_difference_in_float64(
    build: Any, answer: Any, wish: Any
) -> None:
    torch.manual_seed(3)
    loss = Attribute(double_network(build(**NAMES), answer), "hat", wish, keep=2.0)
    agrees_with_differences(loss, prediction(40))


def test_the_embedded_regressors_gradient_is_the_central_difference_in_float64() -> None:
    model = regressor.load()
    wide = torch.nn.Sequential(model.features, model.head).double()
    network = ClassifierNetwork(FACTORS, "regression", wide, next(wide.parameters()))
    base = prediction(64)
    agrees_with_differences(Attribute(network, "smile", By(0.5), keep=0.3), base)
    loaded = load_differentiable_classifier(EMBEDDED, CPU)
    torch.testing.assert_close(
        loaded.outputs(base.edited_BCHW), wide(base.edited_BCHW).float(), rtol=1e-4, atol=1e-4
    )


def fixed(outputs: dict[float, list[float]], answer: Any) -> ClassifierNetwork:
    """Raw outputs that depend on the first pixel alone."""

    def answered(image_BCHW: Tensor) -> Tensor:
        return torch.stack([torch.tensor(outputs[float(x[0, 0, 0])]) for x in image_BCHW])

    return ClassifierNetwork(("smile", "hat", "beard"), answer, answered, torch.zeros(1))


def flat() -> Prediction:
    zeros = torch.zeros(1, 3, 2, 2)
    return Prediction(zeros + 1, zeros, zeros)


def test_a_regression_is_asked_for_a_change_or_a_value_and_the_rest_kept() -> None:
    network = fixed({0.0: [1.0, 2.0, 3.0], 1.0: [1.5, 2.25, 2.0]}, "regression")
    assert Attribute(network, "hat", By(0.75))(flat()).tolist() == [0.25]
    assert Attribute(network, "hat", To(2.0))(flat()).tolist() == [0.0625]
    # The others changed by 0.5 and -1: a mean square of 0.625, twice of which is 1.25.
    assert Attribute(network, "hat", By(0.75), keep=2.0)(flat()).tolist() == [1.5]


def test_probabilities_are_asked_for_by_the_negative_log_likelihood() -> None:
    before, after = torch.tensor([0.3, -0.5, 1.2]), torch.tensor([0.1, 0.9, -0.4])
    logits = {0.0: before.tolist(), 1.0: after.tolist()}
    p_K, q_K = after.softmax(0), before.softmax(0)
    network = fixed(logits, "single_label")
    assert float(Attribute(network, "hat", To(1.0))(flat())) == pytest.approx(-float(p_K[1].log()))
    absent = float(Attribute(network, "hat", To(0.0))(flat()))
    assert absent == pytest.approx(-float((1 - p_K[1]).log()), rel=1e-5)
    kept = float(Attribute(network, "hat", To(0.0), keep=3.0)(flat()))
    moved = float((p_K[0] - q_K[0]) ** 2 + (p_K[2] - q_K[2]) ** 2) / 2
    assert kept - absent == pytest.approx(3 * moved, rel=1e-4)
    sigmoids = fixed(logits, "multi_label")
    assert float(Attribute(sigmoids, "hat", To(0.0))(flat())) == pytest.approx(
        -float((1 - after[1].sigmoid()).log()), rel=1e-5
    )


def test_a_class_that_is_surely_absent_still_has_a_gradient() -> None:
    logits = torch.tensor([[0.0, -200.0, 1.0]], requires_grad=True)
    network = ClassifierNetwork(
        ("smile", "hat", "beard"), "single_label", lambda _: logits, torch.zeros(1)
    )
    loss_B = Attribute(network, "hat", To(1.0))(flat())
    loss_B.sum().backward()
    assert loss_B.item() == pytest.approx(200 + float(torch.tensor([0.0, 1.0]).logsumexp(0)))
    assert logits.grad is not None
    assert float(logits.grad[0, 1]) == pytest.approx(-1)


def test_wishes_that_an_output_cannot_have_are_refused() -> None:
    network = fixed({}, "single_label")
    with pytest.raises(ConfigProblem, match="which is for regressions"):
        Attribute(network, "hat", By(0.5))
    with pytest.raises(ConfigProblem, match="between 0 and 1"):
        Attribute(network, "hat", To(1.5))
    with pytest.raises(ConfigProblem, match="nearest is 'smile'"):
        Attribute(network, "smiling", To(1.0))


@pytest.mark.parametrize("problem", [None, "multi_label_classification", "regression"])
def test_differentiable_outputs_are_the_scores_of_the_classifier(
    problem: str | None, tmp_path: Path
) -> None:
    folder = str(saved(tmp_path / "model", resnet, problem_type=problem))
    network = load_differentiable_classifier(folder, CPU)
    image_BCHW = smooth(32)
    logits_BK = network.outputs(image_BCHW.requires_grad_())
    scores_BK = {
        "single_label": logits_BK.softmax(1),
        "multi_label": logits_BK.sigmoid(),
        "regression": logits_BK,
    }[network.answer]
    expected_BK = load_classifier(folder, CPU).scores(image_BCHW)
    torch.testing.assert_close(scores_BK.detach(), expected_BK, rtol=1e-4, atol=1e-5)
    assert network.names == ("smile", "hat", "beard")
    (gradient_BCHW,) = torch.autograd.grad(scores_BK[:, 0].sum(), image_BCHW)
    assert float(gradient_BCHW.abs().min(dim=0).values.max()) > 0


def test_gradients_pass_where_the_prediction_overshoots_white(tmp_path: Path) -> None:
    network = load_differentiable_classifier(str(saved(tmp_path / "model")), CPU)
    image_BCHW = torch.full((1, 3, 32, 32), 1.3, requires_grad=True)
    network.outputs(image_BCHW)[0, 0].backward()
    assert image_BCHW.grad is not None
    assert float(image_BCHW.grad.abs().max()) > 0
