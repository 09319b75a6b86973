"""Pixels, identity and the weighted sum against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.metrics.embeddings import load_image_encoder
from lib.models.checkpoint import EMBEDDED
from lib.models.encoder_network import load_differentiable_encoder
from lib.objectives.identity import Identity
from lib.objectives.pixels import PairedChange, PixelDistance
from lib.objectives.prediction import Prediction
from lib.objectives.weighted_sum import WeightedSum

CPU = torch.device("cpu")


def image(*pixels: float) -> Tensor:
    """(1, 3, 1, W) of greys."""
    return torch.tensor(pixels).expand(1, 3, 1, len(pixels)).clone()


def known() -> Prediction:
    """Asked for a change of (0.2, 0, -0.4, 0), made one of (0.2, 0.1, 0, 0)."""
    return Prediction(
        edited_BCHW=image(0.3, 0.2, 0.5, -0.2),
        plain_BCHW=image(0.1, 0.1, 0.5, -0.2),
        image_BCHW=image(0.0, 0.0, 0.6, -0.1),
        target_BCHW=image(0.2, 0.0, 0.2, -0.1),
    )


def test_a_paired_change_is_what_is_missing_of_the_true_one() -> None:
    # Missing: (0, 0.1, 0.4, 0). Squares 0.17 of 0.20; absolute values 0.5 of 0.6.
    assert float(PairedChange("l2")(known())) == pytest.approx(0.17 / 0.20)
    assert float(PairedChange("l1")(known())) == pytest.approx(0.5 / 0.6)


@pytest.mark.parametrize("norm", ["l1", "l2"])
@pytest.mark.parametrize("size", [0.05, 0.5])
def test_a_paired_change_is_one_for_no_edit_and_zero_for_the_true_one(
    norm: Any, size: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    image_BCHW, change_BCHW = torch.randn(2, 2, 3, 8, 8, generator=generator)
    plain_BCHW, target_BCHW = image_BCHW * 0.9, image_BCHW + size * change_BCHW
    none = Prediction(plain_BCHW, plain_BCHW, image_BCHW, target_BCHW)
    torch.testing.assert_close(PairedChange(norm)(none), torch.ones(2))
    true = Prediction(plain_BCHW + size * change_BCHW, plain_BCHW, image_BCHW, target_BCHW)
    torch.testing.assert_close(PairedChange(norm)(true), torch.zeros(2), rtol=0, atol=1e-5)


def test_a_counterfactual_that_is_the_image_itself_gives_a_finite_loss() -> None:
    base = known()
    same = Prediction(base.edited_BCHW, base.plain_BCHW, base.image_BCHW, base.image_BCHW)
    # Squares of the change made, mean 0.0125, over that of half a level.
    assert float(PairedChange()(same)) == pytest.approx(0.0125 * 255**2)


def test_a_paired_loss_without_a_target_is_refused() -> None:
    base = known()
    with pytest.raises(ValueError, match="counterfactual"):
        PairedChange()(Prediction(base.edited_BCHW, base.plain_BCHW, base.image_BCHW))


def test_the_pixel_distance_is_the_mean_absolute_change() -> None:
    # Since the prediction (0.2, 0.1, 0, 0), since the image (0.3, 0.2, 0.1, 0.1).
    assert float(PixelDistance()(known())) == pytest.approx(0.3 / 4)
    assert float(PixelDistance("image")(known())) == pytest.approx(0.7 / 4)


def test_gradients_reach_the_edited_prediction_alone() -> None:
    leaves = [torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(4)]
    for loss in (PairedChange("l1"), PairedChange("l2"), PixelDistance(), PixelDistance("image")):
        gradients = torch.autograd.grad(loss(Prediction(*leaves)).sum(), leaves, allow_unused=True)
        assert float(gradients[0].abs().sum()) > 0
        assert gradients[1:] == (None, None, None)


@pytest.mark.parametrize("kind", [EMBEDDED, "clip"])
@pytest.mark.parametrize("against", ["prediction", "image"])
def test_identity_is_zero_for_equal_images_and_one_less_the_similarity(
    kind: str, against: Any, clip: Path
) -> None:
    path = EMBEDDED if kind == EMBEDDED else str(clip)
    side = 64 if kind == EMBEDDED else 24
    generator = torch.Generator().manual_seed(1)
    levels = torch.randint(0, 256, (3, 2, 3, side, side), generator=generator) / 127.5 - 1
    edited_BCHW, plain_BCHW, image_BCHW = levels
    loss = Identity(load_differentiable_encoder(path, CPU).embed, against)
    reference_BCHW = plain_BCHW if against == "prediction" else image_BCHW
    same = Prediction(reference_BCHW.clone(), plain_BCHW, image_BCHW)
    torch.testing.assert_close(loss(same), torch.zeros(2), rtol=0, atol=1e-9)
    encoder = load_image_encoder(path, CPU)
    cosine_B = torch.nn.functional.cosine_similarity(
        encoder(edited_BCHW), encoder(reference_BCHW), dim=1
    )
    found_B = loss(Prediction(edited_BCHW.requires_grad_(), plain_BCHW, image_BCHW))
    torch.testing.assert_close(found_B.detach(), 1 - cosine_B, rtol=1e-4, atol=1e-5)
    (gradient_BCHW,) = torch.autograd.grad(found_B.sum(), edited_BCHW)
    assert float(gradient_BCHW.flatten(1).norm(dim=1).min()) > 0


def test_the_identity_gradient_is_the_central_difference_in_float64() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.SiLU(), torch.nn.Flatten())
    loss = Identity(network.double().requires_grad_(False))
    a, b, c = torch.randn(3, 2, 3, 8, 8, dtype=torch.float64)

    def of(edited_BCHW: Tensor) -> Tensor:
        return loss(Prediction(edited_BCHW, b, c))

    assert torch.autograd.gradcheck(of, (a.requires_grad_(),))


def test_the_sum_is_weighted_and_the_curves_are_not() -> None:
    leaf = known().edited_BCHW.requires_grad_()
    base = known()
    two = Prediction(
        leaf.expand(2, -1, -1, -1),
        base.plain_BCHW.expand(2, -1, -1, -1),
        torch.cat([base.image_BCHW, base.image_BCHW * 0]),
    )
    loss = WeightedSum([(2.0, PixelDistance()), (0.5, PixelDistance("image", name="real"))])
    found = loss(two)
    # Since the prediction 0.075 for both; since the images 0.175 and (0.3 + 0.2 + 0.5 + 0.2) / 4.
    assert found.total_B.tolist() == pytest.approx([2 * 0.075 + 0.5 * 0.175, 2 * 0.075 + 0.5 * 0.3])
    assert {k: float(v) for k, v in found.means.items()} == pytest.approx(
        {"l1": 0.075, "real": (0.175 + 0.3) / 2}
    )
    assert loss.names == ("l1", "real")
    assert not any(mean.requires_grad for mean in found.means.values())
    assert found.total_B.requires_grad


def test_sums_of_no_or_equal_names_or_weights_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="distinct names"):
        WeightedSum([])
    with pytest.raises(ValueError, match="distinct names"):
        WeightedSum([(1.0, PixelDistance()), (1.0, PixelDistance("image"))])
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive weight"):
            WeightedSum([(weight, PixelDistance())])


def test_predictions_of_other_shapes_are_refused() -> None:
    a = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="one shape"):
        Prediction(a, a, a[:1])
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        Prediction(a[:, :1], a[:, :1], a[:, :1])
