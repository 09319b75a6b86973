"""Scores against transformers' own models and processors, and hand-computed cosines."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    BertConfig,
    BertModel,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lib.demo import regressor
from lib.metrics.embeddings import load_image_encoder
from lib.metrics.lpips_network import lpips_version
from lib.metrics.scores import (
    DirectionalScorer,
    load_directional,
    load_lpips,
    load_similarity,
)
from lib.models.checkpoint import EMBEDDED
from lib.models.transformers_folder import image_encoder_sha256
from lib.problems import ConfigProblem, ModelProblem

CPU = torch.device("cpu")
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
TEXTS = ["face", "smile face"]
PATCHES = {"image_size": 32, "patch_size": 8}


def saved(folder: Path, model: Any) -> Path:
    for value in model.parameters():
        torch.nn.init.normal_(value, std=0.3)
    model.save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def pictures(count: int = 3, side: int = 48) -> list[Image.Image]:
    pixels = np.random.default_rng(1).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in pixels]


def tensors(images: list[Image.Image]) -> torch.Tensor:
    array_BHWC = np.stack([np.asarray(p) for p in images]).astype(np.float32)
    return torch.from_numpy(array_BHWC).permute(0, 3, 1, 2) / 127.5 - 1


@torch.no_grad()
def of_transformers(folder: Path, model: Any, take: Any) -> np.ndarray[Any, Any]:
    """Embeddings by the model class itself, image by image."""
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    found = []
    for picture in pictures():
        pixels = processor(images=picture, return_tensors="pt")["pixel_values"]
        found.append(take(model(pixel_values=pixels))[0].flatten().numpy())
    return np.stack(found)


def cosine(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_embeddings_are_those_of_each_architecture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    resnet = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
    cases: list[tuple[Any, Any]] = [
        (Dinov2Model, Dinov2Config(**SIZES, **PATCHES)),
        (ViTModel, ViTConfig(**SIZES, **PATCHES, pooler_output_size=16)),
        (ResNetModel, resnet),
    ]
    for architecture, config in cases:
        name, model = architecture.__name__, architecture(config)
        folder = saved(tmp_path / name, model)
        again = architecture.from_pretrained(folder).eval()
        expected = of_transformers(folder, again, lambda out: out.pooler_output)
        found = load_image_encoder(str(folder), CPU)(tensors(pictures()))
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_a_classifier_without_a_pooler_gives_its_first_token(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**SIZES, **PATCHES))
    folder = saved(tmp_path / "vit", model)
    base = ViTForImageClassification.from_pretrained(folder).eval().vit
    expected = of_transformers(folder, base, lambda out: out.last_hidden_state[:, 0])
    found = load_image_encoder(str(folder), CPU)(tensors(pictures()))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_similarity_with_clip_is_the_cosine_of_its_image_embeddings(clip: Path) -> None:
    model = CLIPModel.from_pretrained(clip).eval()
    processor = CLIPImageProcessorPil.from_pretrained(clip)
    with torch.no_grad():
        pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
        tokens = CLIPTokenizer.from_pretrained(clip)(["face"], return_tensors="pt")
        expected_BE = model(**tokens, pixel_values=pixels).image_embeds.numpy()
    scorer = load_similarity(str(clip), CPU)
    images_BCHW = tensors(pictures())
    found_B = scorer(images_BCHW[:1], images_BCHW)
    assert found_B.shape == (3,)
    for score, row in zip(found_B.tolist(), expected_BE, strict=True):
        assert score == pytest.approx(cosine(expected_BE[0], row), abs=1e-5)
    assert float(found_B[0]) == pytest.approx(1, abs=1e-6)
    pairs_B = scorer(images_BCHW, images_BCHW.flip(0))
    assert pairs_B[0] == pytest.approx(float(pairs_B[2]), abs=1e-6)


def test_directional_similarity_is_that_of_its_definition_with_transformers(clip: Path) -> None:
    model = CLIPModel.from_pretrained(clip).eval()
    tokens = CLIPTokenizer.from_pretrained(clip)(TEXTS, return_tensors="pt", padding=True)
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images=pictures(), return_tensors="pt")
    with torch.no_grad():
        output = model(**tokens, pixel_values=pixels["pixel_values"])
    texts, images = output.text_embeds.numpy(), output.image_embeds.numpy()
    scorer = load_directional(str(clip), "face", "smile face", CPU)
    images_BCHW = tensors(pictures())
    found = scorer(images_BCHW[:1], images_BCHW).tolist()
    assert found[0] == 0.0, "an edit that changes nothing has no direction"
    for score, row in zip(found[1:], images[1:], strict=True):
        assert score == pytest.approx(cosine(row - images[0], texts[1] - texts[0]), abs=1e-4)
    opposite = load_directional(str(clip), "smile face", "face", CPU)
    assert opposite(images_BCHW[:1], images_BCHW)[1] == pytest.approx(-found[1], abs=1e-6)


def test_directional_similarity_by_hand() -> None:
    # The first pixel's red and green are the embedding: (1, 0) goes to (0, 1), so the difference
    # is (-1, 1); with texts that differ by (0, 2) the cosine is 2 / (sqrt(2) * 2).
    def encoder(image_BCHW: torch.Tensor) -> torch.Tensor:
        return image_BCHW[:, :2, 0, 0]

    before, after = torch.zeros(1, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    before[0, 0], after[0, 1], after[1, 0] = 1, 0.25, 0.5
    found_B = DirectionalScorer(encoder, torch.tensor([0.0, 2.0]))(before, after)
    assert found_B.tolist() == pytest.approx([1 / np.sqrt(2), 0.0])


def test_the_embedded_encoder_finds_a_faint_change_more_similar_than_another_image() -> None:
    generator = torch.Generator().manual_seed(3)
    scorer = load_similarity(EMBEDDED, CPU)
    image_BCHW = torch.rand(2, 3, 64, 64, generator=generator) * 2 - 1
    nearly = (image_BCHW[:1] + 0.01).clamp(-1, 1)
    found = scorer(image_BCHW[:1], torch.cat([nearly, image_BCHW[1:]]))
    assert found[0] > found[1]
    with pytest.raises(ValueError, match="64 x 64"):
        scorer(image_BCHW[:1, :, :32, :32], image_BCHW[:1, :, :32, :32])


def test_embedded_features_lead_to_the_factors_by_the_last_layer() -> None:
    image_BCHW = torch.rand(2, 3, 64, 64) * 2 - 1
    model = regressor.load()
    features_BE = load_image_encoder(EMBEDDED, CPU)(image_BCHW)
    with torch.no_grad():
        torch.testing.assert_close(model.head[-1](features_BE), model(image_BCHW))


def test_unusable_folders_are_refused_with_the_reason(tmp_path: Path, clip: Path) -> None:
    with pytest.raises(ModelProblem, match="is no folder"):
        load_similarity(str(tmp_path / "none"), CPU)
    bert = saved(tmp_path / "bert", BertModel(BertConfig(**SIZES, intermediate_size=16)))
    with pytest.raises(ModelProblem, match="turns images to embeddings"):
        load_similarity(str(bert), CPU)
    masked = ViTMAEModel(ViTMAEConfig(**SIZES, **PATCHES, intermediate_size=16))
    with pytest.raises(ModelProblem, match="draws random numbers"):
        load_similarity(str(saved(tmp_path / "mae", masked)), CPU)
    (clip_config := AutoConfig.from_pretrained(clip)).save_pretrained(tmp_path / "bare")
    assert clip_config.model_type == "clip"
    with pytest.raises(ModelProblem, match="weights"):
        load_similarity(str(tmp_path / "bare"), CPU)
    with pytest.raises(ConfigProblem, match="the same to the model"):
        load_directional(str(clip), "face", "face", CPU)


def test_images_that_do_not_fit_are_refused(clip: Path) -> None:
    scorer = load_similarity(str(clip), CPU)
    good = torch.zeros(2, 3, 16, 16)
    with pytest.raises(ValueError, match="one for all"):
        scorer(torch.zeros(3, 3, 16, 16), good)
    with pytest.raises(ValueError, match="finite"):
        scorer(good[:1] * float("nan"), good)


def test_the_hash_of_an_encoder_is_that_of_its_content(clip: Path) -> None:
    assert len(image_encoder_sha256(str(clip))) == 64
    assert image_encoder_sha256(EMBEDDED) != image_encoder_sha256(str(clip))


def test_lpips_compares_every_edit_with_the_one_original(monkeypatch: pytest.MonkeyPatch) -> None:
    class Distance:
        def to(self, device: torch.device) -> Distance:
            return self

        def eval(self) -> Distance:
            return self

        def __call__(self, a_BCHW: torch.Tensor, b_BCHW: torch.Tensor) -> torch.Tensor:
            return (a_BCHW - b_BCHW).abs().mean((1, 2, 3), keepdim=True)

    package: Any = ModuleType("lpips")
    package.LPIPS = lambda net, verbose: Distance()
    monkeypatch.setitem(sys.modules, "lpips", package)
    scorer = load_lpips("alex", CPU)
    edited = torch.stack([torch.full((3, 32, 32), v) for v in (0.0, 0.25)])
    assert scorer(torch.zeros(1, 3, 32, 32), edited).tolist() == [0.0, 0.25]
    with pytest.raises(ModelProblem, match="32 x 32 pixels or more, got 16 x 16"):
        scorer(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def test_without_the_package_lpips_says_which_extra_to_install() -> None:
    try:
        import lpips  # noqa: F401
    except ImportError:
        with pytest.raises(ModelProblem, match=r"deltah\[lpips\]"):
            load_lpips("alex", CPU)
        with pytest.raises(ModelProblem, match=r"deltah\[lpips\]"):
            lpips_version()
