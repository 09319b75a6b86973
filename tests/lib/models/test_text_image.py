"""The CLIP gradient against finite differences in float64 and transformers' own processor."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lib.models.text_image import ClipTextImage, load_text_image
from lib.models.text_tokens import load_text_tokens
from lib.models.transformers_folder import open_text_image, text_image_sha256
from lib.problems import ConfigProblem, ModelProblem

CPU = torch.device("cpu")


@pytest.fixture
def folder(clip: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clip, tmp_path / "clip"))


def image(side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, side, side, generator=generator, dtype=torch.float64) * 2 - 1


@pytest.mark.parametrize("side", [16, 24, 40])
def test_gradient_is_the_central_difference_in_float64(clip: Path, side: int) -> None:
    model = CLIPModel.from_pretrained(clip, dtype=torch.float64).eval()
    tokens = load_text_tokens(open_text_image(str(clip)))
    judge = ClipTextImage(model, tokens, [0.4, 0.5, 0.6], [0.3] * 3)
    image_BCHW = image(side)
    gradient_BCHW = judge.gradient(image_BCHW, "face", "smile face")
    assert gradient_BCHW.shape == image_BCHW.shape

    def difference(x_BCHW: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return judge.similarity(x_BCHW, "smile face") - judge.similarity(x_BCHW, "face")

    step = 1e-4
    for seed in range(3):
        generator = torch.Generator().manual_seed(100 + seed)
        along_BCHW = torch.randn(image_BCHW.shape, generator=generator, dtype=torch.float64)
        above_B = difference(image_BCHW + step * along_BCHW)
        below_B = difference(image_BCHW - step * along_BCHW)
        product_B = (gradient_BCHW * along_BCHW).flatten(1).sum(1)
        torch.testing.assert_close(
            (above_B - below_B) / (2 * step), product_B, rtol=1e-5, atol=1e-9
        )


def test_similarity_is_that_of_transformers_processor_and_model(clip: Path) -> None:
    pixels = np.random.default_rng(0).integers(30, 220, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC)
    inputs = CLIPTokenizer.from_pretrained(clip)(["a smile"], return_tensors="pt")
    processed = CLIPImageProcessorPil.from_pretrained(clip)(images=picture, return_tensors="pt")
    model = CLIPModel.from_pretrained(clip).eval()
    with torch.no_grad():
        output = model(**inputs, pixel_values=processed["pixel_values"])
        expected = float(output.logits_per_image / model.logit_scale.exp())
    image_BCHW = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None] / 127.5 - 1
    found = float(load_text_image(str(clip), CPU).similarity(image_BCHW, "a smile"))
    # 8-bit rounding after the resize is the only difference.
    assert found == pytest.approx(expected, abs=2e-3)


def test_each_image_of_a_batch_has_its_own_gradient(clip: Path) -> None:
    judge = load_text_image(str(clip), CPU)
    image_BCHW = image(24).float()
    together = judge.gradient(image_BCHW, "face", "smile")
    alone = torch.cat([judge.gradient(row[None], "face", "smile") for row in image_BCHW])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-7)
    opposite = judge.gradient(image_BCHW, "smile", "face")
    torch.testing.assert_close(together, -opposite, rtol=1e-4, atol=1e-7)
    assert together.dtype == torch.float32


def test_texts_that_ask_for_nothing_are_refused(clip: Path) -> None:
    judge = load_text_image(str(clip), CPU)
    image_BCHW = image(24).float()
    with pytest.raises(ConfigProblem, match="the same to the model"):
        judge.gradient(image_BCHW, "Face", "face")
    with pytest.raises(ConfigProblem, match="empty"):
        judge.gradient(image_BCHW, "", "face")
    with pytest.raises(ConfigProblem, match="the model reads 12"):
        judge.gradient(image_BCHW, "face", "face " * 20)


def test_images_without_values_are_refused(clip: Path) -> None:
    judge = load_text_image(str(clip), CPU)
    with pytest.raises(ValueError, match="finite images"):
        judge.gradient(torch.full((1, 3, 24, 24), float("nan")), "face", "smile")
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        judge.gradient(torch.zeros(3, 24, 24), "face", "smile")


def test_the_hash_follows_weights_and_vocabulary(folder: Path) -> None:
    before = text_image_sha256(str(folder))
    weights = load_file(folder / "model.safetensors")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    changed = dict(weights, logit_scale=weights["logit_scale"] + 1)
    save_file(changed, folder / "model.safetensors", {"format": "pt"})
    after = text_image_sha256(str(folder))
    assert after != before
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert text_image_sha256(str(folder)) not in (before, after)


def test_unusable_folders_are_refused(folder: Path) -> None:
    with pytest.raises(ModelProblem, match="is no folder"):
        load_text_image("openai/clip-vit-base-patch32", CPU)
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelProblem, match=r"visual_projection\.weight"):
        load_text_image(str(folder), CPU)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelProblem, match="texts cannot be read"):
        load_text_image(str(folder), CPU)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelProblem, match="never"):
        load_text_image(str(folder), CPU)
    shutil.copy(folder / "pytorch_model.bin", folder / "model.safetensors")
    AutoConfig.for_model("siglip").save_pretrained(folder)
    with pytest.raises(ModelProblem, match="expected model_type 'clip', got 'siglip'"):
        text_image_sha256(str(folder))
