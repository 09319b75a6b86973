"""The differentiable preprocessing against the processors of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.efficientnet.image_processing_pil_efficientnet import (
    EfficientNetImageProcessorPil,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lib.models.image_preprocessing import load_preprocessing
from lib.models.transformers_folder import open_classifier
from lib.models.transformers_images import ImageProcessor
from lib.problems import ModelProblem

MEAN_STD = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "square": ViTImageProcessorPil(size={"height": 32, "width": 32}, **MEAN_STD),
    "shortest-and-cut": CLIPImageProcessorPil(
        size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32}
    ),
    "share-that-is-cut": ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.8),
    "not-rescaled": ViTImageProcessorPil(
        size={"height": 32, "width": 32}, do_rescale=False, image_mean=[90.0] * 3,
        image_std=[50.0] * 3,
    ),
    "not-normalised": ViTImageProcessorPil(
        size={"height": 32, "width": 32}, do_normalize=False, resample=3
    ),
}  # fmt: skip


def saved(folder: Path, processor: Any) -> Path:
    """A folder whose weights nobody reads."""
    (folder / "config.json").write_text('{"model_type": "vit"}')
    save_file({"none": torch.zeros(1)}, folder / "model.safetensors")
    processor.save_pretrained(folder)
    return folder


def smooth(side: int) -> Tensor:
    generator = torch.Generator().manual_seed(side)
    noise_BCHW = torch.rand(2, 3, 5, 5, generator=generator) * 1.6 - 0.8
    picture_BCHW = torch.nn.functional.interpolate(noise_BCHW, (side, side), mode="bilinear")
    return ((picture_BCHW + 1) * 127.5).round() / 127.5 - 1


@pytest.mark.parametrize("side", [32, 50, 200])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_differentiable_preprocessing_is_the_models_own_processor(
    processor: str, side: int, tmp_path: Path
) -> None:
    folder = saved(tmp_path, PROCESSORS[processor])
    found = open_classifier(str(folder))
    made = load_preprocessing(found, torch.zeros(()))
    picture_BCHW = smooth(side)
    expected_BCHW = ImageProcessor(found)(picture_BCHW)
    # Rounding to 8 bits after either axis of the resampling is the only difference.
    level = float(1 / (255 * made.std_CHW).min())
    native = side == 32 and processor in ("square", "not-rescaled", "not-normalised")
    torch.testing.assert_close(
        made(picture_BCHW), expected_BCHW, rtol=1e-5, atol=1e-5 if native else 1.5 * level
    )


def test_an_oblong_image_is_cut_as_the_processor_cuts_it(tmp_path: Path) -> None:
    found = open_classifier(str(saved(tmp_path, PROCESSORS["shortest-and-cut"])))
    picture_BCHW = smooth(80)[:, :, :57]
    made = load_preprocessing(found, torch.zeros(()))
    torch.testing.assert_close(
        made(picture_BCHW), ImageProcessor(found)(picture_BCHW), rtol=0, atol=0.025
    )


def test_preprocessing_that_is_not_reproduced_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, PROCESSORS["square"])
    like = torch.zeros(())
    EfficientNetImageProcessorPil(
        size={"height": 32, "width": 32}, rescale_offset=True, resample=2
    ).save_pretrained(folder)
    with pytest.raises(ModelProblem, match="levels of 255"):
        load_preprocessing(open_classifier(str(folder)), like)
    ViTImageProcessorPil(size={"height": 32, "width": 32}, resample=0).save_pretrained(folder)
    with pytest.raises(ModelProblem, match="got resample 0"):
        load_preprocessing(open_classifier(str(folder)), like)
