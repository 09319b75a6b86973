"""Classifiers against transformers' own pipeline, and the ways a folder can be unusable."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    ConvNextConfig,
    ConvNextForImageClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    pipeline,
)
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from lib.demo.faces import FACTORS
from lib.models.checkpoint import EMBEDDED
from lib.models.image_classifier import class_index, load_classifier
from lib.models.transformers_folder import classifier_sha256
from lib.problems import ConfigProblem, ModelProblem

CPU = torch.device("cpu")
NAMES = {"id2label": {0: "smile", 1: "hat", 2: "beard"}}
MEAN_STD = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def vit(**config: Any) -> tuple[torch.nn.Module, Any]:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = ViTForImageClassification(
        ViTConfig(**sizes, intermediate_size=16, image_size=32, patch_size=8, **config)
    )
    return model, ViTImageProcessorPil(size={"height": 32, "width": 32})


def resnet(**config: Any) -> tuple[torch.nn.Module, Any]:
    model = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], **config)
    )
    # One training pass, so that the running statistics are not those of an untouched BatchNorm.
    model.train()(torch.randn(8, 3, 32, 32))
    return model, ViTImageProcessorPil(size={"height": 40, "width": 40}, resample=3, **MEAN_STD)


def convnext(**config: Any) -> tuple[torch.nn.Module, Any]:
    model = ConvNextForImageClassification(
        ConvNextConfig(num_stages=2, hidden_sizes=[8, 16], depths=[1, 1], **config)
    )
    # The processor that enlarges first and cuts the middle out.
    return model, ConvNextImageProcessorPil(size={"shortest_edge": 32}, crop_pct=0.8, **MEAN_STD)


def saved(folder: Path, build: Any, **config: Any) -> Path:
    torch.manual_seed(0)
    model, processor = build(**config)
    for name, value in model.named_parameters():
        if "classifier" in name:
            torch.nn.init.normal_(value, std=0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def _vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("vit") / "vit", vit, **NAMES)


@pytest.fixture
def folder(_vit: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(_vit, tmp_path / "vit"))


def pictures() -> list[Image.Image]:
    pixels = np.random.default_rng(1).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    return [Image.fromarray(p).resize((48, 48), Image.Resampling.BICUBIC) for p in pixels]


def tensors(images: list[Image.Image]) -> torch.Tensor:
    array_BHWC = np.stack([np.asarray(p) for p in images]).astype(np.float32)
    return torch.from_numpy(array_BHWC).permute(0, 3, 1, 2) / 127.5 - 1


@pytest.mark.parametrize("build", [vit, resnet, convnext])
@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_scores_are_those_of_the_transformers_pipeline(
    build: Any, problem: str | None, tmp_path: Path
) -> None:
    folder = saved(tmp_path / "model", build, **NAMES, problem_type=problem)
    classifier = load_classifier(str(folder), CPU)
    assert classifier.names == ("smile", "hat", "beard")
    scores_BK = classifier.scores(tensors(pictures()))
    assert scores_BK.dtype == torch.float32
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pipe = pipeline("image-classification", str(folder), image_processor=processor)
    for row, answers in zip(scores_BK, pipe(pictures(), top_k=3), strict=True):
        expected = {a["label"]: a["score"] for a in answers}
        for name, score in zip(classifier.names, row.tolist(), strict=True):
            assert score == pytest.approx(expected[name], abs=2e-6)
    sums_B = scores_BK.sum(dim=1)
    assert torch.allclose(sums_B, torch.ones(4)) == (problem is None)
    assert float(scores_BK.std(dim=0).min()) > 1e-4, "the pictures must differ for this test"


def test_one_image_scores_as_in_a_batch(folder: Path) -> None:
    classifier = load_classifier(str(folder), CPU)
    image_BCHW = tensors(pictures())
    single_BK = torch.cat([classifier.scores(row[None]) for row in image_BCHW])
    torch.testing.assert_close(classifier.scores(image_BCHW), single_BK, rtol=0, atol=1e-6)


def test_a_regression_gives_its_raw_outputs(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model", vit, **NAMES, problem_type="regression")
    scores_BK = load_classifier(str(folder), CPU).scores(tensors(pictures()))
    assert float(scores_BK.min()) < 0 or float(scores_BK.max()) > 1


def test_half_precision_weights_are_computed_in_float32(folder: Path) -> None:
    before_BK = load_classifier(str(folder), CPU).scores(tensors(pictures()))
    path = folder / "model.safetensors"
    save_file({k: v.half() for k, v in load_file(path).items()}, path, {"format": "pt"})
    after_BK = load_classifier(str(folder), CPU).scores(tensors(pictures()))
    assert after_BK.dtype == torch.float32
    assert 0 < float((after_BK - before_BK).abs().max()) < 1e-2


def test_sharded_weights_are_read(folder: Path, tmp_path: Path) -> None:
    model = ViTForImageClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "shards", max_shard_size="8KB")
    shutil.copy(folder / "preprocessor_config.json", tmp_path / "shards")
    assert not (tmp_path / "shards/model.safetensors").exists()
    sharded = load_classifier(str(tmp_path / "shards"), CPU).scores(tensors(pictures()))
    whole = load_classifier(str(folder), CPU).scores(tensors(pictures()))
    assert torch.equal(sharded, whole)
    next((tmp_path / "shards").glob("model-00001*")).unlink()
    with pytest.raises(ModelProblem, match="expected the files it names"):
        load_classifier(str(tmp_path / "shards"), CPU)


def test_the_embedded_classifier_reads_the_factors_of_faces() -> None:
    classifier = load_classifier(EMBEDDED, CPU)
    assert classifier.names == tuple(FACTORS)
    assert classifier.scores(torch.zeros(2, 3, 64, 64)).shape == (2, len(FACTORS))
    with pytest.raises(ValueError, match="64"):
        classifier.scores(torch.zeros(1, 3, 32, 32))


def test_an_unknown_class_is_refused_with_the_nearest(folder: Path) -> None:
    classifier = load_classifier(str(folder), CPU)
    assert class_index(classifier, "beard") == 2
    with pytest.raises(ConfigProblem, match="nearest is 'smile'"):
        class_index(classifier, "smiling")


def test_images_that_cannot_be_scored_are_refused(folder: Path) -> None:
    classifier = load_classifier(str(folder), CPU)
    with pytest.raises(ValueError, match="finite images"):
        classifier.scores(torch.full((1, 3, 48, 48), float("nan")))
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        classifier.scores(torch.zeros(3, 48, 48))


def test_the_hash_follows_weights_and_preprocessing_but_not_the_place(folder: Path) -> None:
    before = classifier_sha256(str(folder))
    assert classifier_sha256(str(folder.rename(folder.with_name("moved")))) == before
    moved = folder.with_name("moved")
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"transformers_version": "0"}))
    assert classifier_sha256(str(moved)) == before
    processing = json.loads((moved / "preprocessor_config.json").read_text())
    processing["image_mean"] = [0.4, 0.4, 0.4]
    (moved / "preprocessor_config.json").write_text(json.dumps(processing))
    other = classifier_sha256(str(moved))
    assert other != before
    weights = load_file(moved / "model.safetensors")
    weights["classifier.bias"] += 1
    save_file(weights, moved / "model.safetensors", {"format": "pt"})
    assert classifier_sha256(str(moved)) not in (before, other)
    assert len(classifier_sha256(EMBEDDED)) == 64


def test_a_name_that_is_no_folder_is_refused() -> None:
    with pytest.raises(ModelProblem, match="expected a folder in transformers format"):
        load_classifier("google/vit-base-patch16-224", CPU)


def test_missing_parts_are_refused(folder: Path) -> None:
    (folder / "preprocessor_config.json").rename(folder / "kept")
    with pytest.raises(ModelProblem, match=r"preprocessor_config\.json"):
        load_classifier(str(folder), CPU)
    (folder / "kept").rename(folder / "preprocessor_config.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelProblem, match="holds no weights"):
        load_classifier(str(folder), CPU)
    (folder / "config.json").unlink()
    with pytest.raises(ModelProblem, match=r"expected config\.json"):
        load_classifier(str(folder), CPU)


def test_pickled_weights_are_refused_unopened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelProblem, match=r"only pytorch_model\.bin.*never"):
        load_classifier(str(folder), CPU)


def test_code_of_the_models_own_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForImageClassification": "model.Evil"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelProblem, match="code of its own"):
        load_classifier(str(folder), CPU)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelProblem, match="expected a whole safetensors file"):
        load_classifier(str(folder), CPU)


def test_weights_without_the_head_are_refused_not_filled_with_noise(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = {k: v for k, v in load_file(path).items() if "classifier" not in k}
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelProblem, match=r"classifier\.bias"):
        load_classifier(str(folder), CPU)


def test_weights_of_another_shape_or_not_finite_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(weights | {"classifier.bias": torch.zeros(7)}, path, {"format": "pt"})
    with pytest.raises(ModelProblem, match="fit"):
        load_classifier(str(folder), CPU)
    nan = torch.full_like(weights["classifier.bias"], float("nan"))
    save_file(weights | {"classifier.bias": nan}, path, {"format": "pt"})
    with pytest.raises(ModelProblem, match="finite weights"):
        load_classifier(str(folder), CPU)


def test_a_model_that_is_no_image_classifier_is_refused(folder: Path) -> None:
    AutoConfig.for_model("bert").save_pretrained(folder)
    with pytest.raises(ModelProblem, match="expected an image classifier"):
        load_classifier(str(folder), CPU)


def test_a_plan_can_hash_a_classifier_without_torch(folder: Path) -> None:
    script = (
        "import sys; from lib.models.transformers_folder import classifier_sha256\n"
        "print(classifier_sha256(sys.argv[1]), {'torch', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        check=True,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert answer.stdout == f"{classifier_sha256(str(folder))} set()\n"
