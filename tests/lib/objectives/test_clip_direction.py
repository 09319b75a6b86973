"""The directional CLIP loss against its formula written out and finite differences in float64."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from lib.models.text_image import ClipTextImage, load_text_image
from lib.models.text_tokens import load_text_tokens
from lib.models.transformers_folder import open_text_image
from lib.objectives.clip_direction import ClipDirection
from lib.objectives.prediction import Prediction
from lib.problems import ConfigProblem

CPU = torch.device("cpu")
FORMS = ("cosine", "log")
AGAINST = ("prediction", "image")


def prediction(side: int = 32, dtype: torch.dtype = torch.float64) -> Prediction:
    generator = torch.Generator().manual_seed(side)
    images = torch.rand(3, 2, 3, side, side, generator=generator, dtype=torch.float64) * 2 - 1
    edited_BCHW, plain_BCHW, image_BCHW = images.to(dtype)
    return Prediction(edited_BCHW, plain_BCHW, image_BCHW)


def double(clip: Path) -> ClipTextImage:
    model = CLIPModel.from_pretrained(clip, dtype=torch.float64).eval().requires_grad_(False)
    tokens = load_text_tokens(open_text_image(str(clip)))
    return ClipTextImage(model, tokens, [0.4, 0.5, 0.6], [0.3] * 3)


def edited(base: Prediction, edited_BCHW: Tensor) -> Prediction:
    return Prediction(edited_BCHW, base.plain_BCHW, base.image_BCHW)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("against", AGAINST)
def test_the_gradient_is_the_central_difference_in_float64(
    clip: Path, form: Any, against: Any
) -> None:
    judge, base = double(clip), prediction()
    loss = ClipDirection(judge, judge.difference("face", "smile face"), form, against)
    image_BCHW = base.edited_BCHW.clone().requires_grad_()
    loss_B = loss(edited(base, image_BCHW))
    assert loss_B.shape == (2,)
    assert loss_B.dtype == torch.float64
    (gradient_BCHW,) = torch.autograd.grad(loss_B.sum(), image_BCHW)
    step = 1e-5
    for seed in range(3):
        generator = torch.Generator().manual_seed(100 + seed)
        along_BCHW = torch.randn(image_BCHW.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            above_B = loss(edited(base, image_BCHW + step * along_BCHW))
            below_B = loss(edited(base, image_BCHW - step * along_BCHW))
        slope_B = (gradient_BCHW * along_BCHW).flatten(1).sum(1)
        torch.testing.assert_close((above_B - below_B) / (2 * step), slope_B, rtol=1e-5, atol=1e-8)
        assert float(slope_B.abs().min()) > 1e-5, "a slope of zero would agree with anything"


@pytest.mark.parametrize("against", AGAINST)
def test_the_two_forms_are_the_papers_and_the_released_codes(clip: Path, against: Any) -> None:
    judge, base = double(clip), prediction()
    change_E = judge.difference("face", "smile")
    source_BCHW = base.plain_BCHW if against == "prediction" else base.image_BCHW
    for row in range(2):
        here = slice(row, row + 1)
        moved_E = judge.images(base.edited_BCHW[here])[0] - judge.images(source_BCHW[here])[0]
        cosine = float(moved_E @ change_E) / math.hypot(*moved_E) / math.hypot(*change_E)
        plain = float(ClipDirection(judge, change_E, "cosine", against)(base)[row])
        logarithm = float(ClipDirection(judge, change_E, "log", against)(base)[row])
        assert plain == pytest.approx(1 - cosine, abs=1e-12)
        assert logarithm == pytest.approx(-math.log((2 - plain) / 2), abs=1e-12)


class _Flat:
    """Embeddings that are the first two colours of the first pixel."""

    def images(self, image_BCHW: Tensor) -> Tensor:
        return image_BCHW[:, :2, 0, 0]


def test_it_is_zero_along_the_texts_and_largest_against_them() -> None:
    plain_BCHW = torch.zeros(3, 3, 1, 1)
    edited_BCHW = torch.tensor([[2.0, 0, 0], [0, 5, 0], [-3, 0, 0]])[:, :, None, None]
    found = Prediction(edited_BCHW, plain_BCHW, plain_BCHW)
    change_E = torch.tensor([0.5, 0.0])
    assert ClipDirection(_Flat(), change_E)(found).tolist() == pytest.approx([0, 1, 2])
    log_B = ClipDirection(_Flat(), change_E, "log")(found)
    assert log_B.tolist() == pytest.approx([0, math.log(2), -math.log(1e-6)], rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_an_editor_that_changes_nothing_yet_is_sent_along_the_texts(form: Any) -> None:
    plain_BCHW = torch.zeros(1, 3, 1, 1)
    edited_BCHW = plain_BCHW.clone().requires_grad_()
    loss_B = ClipDirection(_Flat(), torch.tensor([0.6, 0.8]), form)(
        Prediction(edited_BCHW, plain_BCHW, plain_BCHW)
    )
    loss_B.sum().backward()
    assert edited_BCHW.grad is not None
    descent_C = -edited_BCHW.grad[0, :, 0, 0]
    assert float(descent_C.norm()) > 0
    expected = torch.tensor([0.6, 0.8, 0.0])
    torch.testing.assert_close(torch.nn.functional.normalize(descent_C, dim=0), expected)


def test_gradients_reach_the_image_and_no_weight(clip: Path) -> None:
    judge, base = load_text_image(str(clip), CPU), prediction(dtype=torch.float32)
    image_BCHW = base.edited_BCHW.clone().requires_grad_()
    plain_BCHW = base.plain_BCHW.clone().requires_grad_()
    loss = ClipDirection(judge, judge.difference("face", "smile"))
    loss_B = loss(Prediction(image_BCHW, plain_BCHW, base.image_BCHW))
    assert loss_B.dtype == torch.float32
    loss_B.sum().backward()
    assert image_BCHW.grad is not None
    assert float(image_BCHW.grad.abs().sum()) > 0
    assert plain_BCHW.grad is None
    half = loss(Prediction(*(x.bfloat16() for x in (image_BCHW, plain_BCHW, base.image_BCHW))))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, loss_B, atol=0.05, rtol=0)


def test_a_text_in_templates_is_the_normalised_mean_of_unit_embeddings(clip: Path) -> None:
    model = CLIPModel.from_pretrained(clip).eval()
    tokenizer = CLIPTokenizer.from_pretrained(clip)

    def mean(text: str) -> Tensor:
        units = []
        for sentence in (f"a {text}", f"my {text} b"):
            with torch.no_grad():
                raw = model.get_text_features(**tokenizer([sentence], return_tensors="pt"))
            units.append(raw.pooler_output[0] / raw.pooler_output[0].norm())
        total = units[0] + units[1]
        return total / total.norm()

    judge = load_text_image(str(clip), CPU)
    found_E = judge.difference("face", "smile", ("a {}", "my {} b"))
    torch.testing.assert_close(found_E, mean("smile") - mean("face"), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found_E, judge.difference("face", "smile"), atol=1e-3)


def test_texts_that_are_one_to_the_model_or_too_long_in_a_template_are_refused(
    clip: Path,
) -> None:
    judge = load_text_image(str(clip), CPU)
    with pytest.raises(ConfigProblem, match="the same to the model"):
        judge.difference("Face", "face", ("a {}", "my {}"))
    with pytest.raises(ConfigProblem, match="the model reads 12"):
        judge.difference("face", "smile", ("{}", "a smile and a face and a smile and a {}"))
