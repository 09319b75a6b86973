"""Masks by networks against transformers' own processors and post-processing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    AutoModelForUniversalSegmentation,
    SamModel,
    SamProcessor,
    SegformerForSemanticSegmentation,
)

from lib.files.image_files import ImageError
from lib.masks.mask_generation import GeneratedMasks, Place
from lib.masks.semantic import SemanticMasks
from lib.models.transformers_folder import (
    class_names,
    mask_generator_sha256,
    open_mask_generator,
    open_segmenter,
    segmenter_sha256,
)
from lib.problems import ModelProblem
from lib.records import Sample

CPU = torch.device("cpu")
NAMES = ("background", "skin", "l_eye", "r_eye", "hair", "hat")


@pytest.fixture(scope="module")
def parser(mask_networks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(mask_networks.segformer(tmp_path_factory.mktemp("parser") / "parser", NAMES))


@pytest.fixture(scope="module")
def universal(mask_networks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(mask_networks.mask2former(tmp_path_factory.mktemp("universal") / "net", NAMES))


@pytest.fixture(scope="module")
def sam(mask_networks: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(mask_networks.sam(tmp_path_factory.mktemp("sam") / "sam"))


def pictures(samples: list[Sample]) -> list[Image.Image]:
    return [
        Image.fromarray(((s.image_CHW + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())
        for s in samples
    ]


def test_the_masks_of_a_parser_are_the_largest_of_its_scaled_logits(
    parser: Path, sample: Any
) -> None:
    samples = [sample(k, size=48) for k in range(3)]
    regions = {"eyes": (2, 3), "skin": (1,), "rest": (0, 4, 5)}
    found = SemanticMasks(open_segmenter(str(parser)), regions, CPU)(samples)
    processor = AutoImageProcessor.from_pretrained(parser, backend="pil")
    model = AutoModelForSemanticSegmentation.from_pretrained(parser).eval()
    with torch.no_grad():
        logits = model(**processor(images=pictures(samples), return_tensors="pt")).logits
    scaled = torch.nn.functional.interpolate(logits, (48, 48), mode="bilinear")
    check(found, regions, scaled.argmax(1))


def test_the_masks_of_a_universal_segmenter_are_the_likeliest_class_of_its_queries(
    universal: Path, sample: Any
) -> None:
    samples = [sample(k, size=48) for k in range(3)]
    regions = {"eyes": (2, 3), "skin": (1,), "rest": (0, 4, 5)}
    found = SemanticMasks(open_segmenter(str(universal)), regions, CPU)(samples)
    processor = AutoImageProcessor.from_pretrained(universal, backend="pil")
    model = AutoModelForUniversalSegmentation.from_pretrained(universal).eval()
    with torch.no_grad():
        answer = model(**processor(images=pictures(samples), return_tensors="pt"))
    masks = torch.nn.functional.interpolate(
        answer.masks_queries_logits, (384, 384), mode="bilinear"
    ).sigmoid()
    classes = answer.class_queries_logits.softmax(-1)[..., :-1]
    scores = torch.einsum("bqk, bqyx -> bkyx", classes, masks)
    scaled = torch.nn.functional.interpolate(scores, (48, 48), mode="bilinear")
    check(found, regions, scaled.argmax(1))


def check(found: Any, regions: dict[str, tuple[int, ...]], labels_BHW: torch.Tensor) -> None:
    assert len(torch.unique(labels_BHW)) > 1, "it must tell something apart for this test"
    for masks, labels_HW in zip(found, labels_BHW, strict=True):
        assert not isinstance(masks, ImageError)
        for region, numbers in regions.items():
            np.testing.assert_array_equal(masks[region].numpy(), np.isin(labels_HW, numbers))


def test_the_masks_of_sam_are_those_of_its_own_processor(sam: Path, sample: Any) -> None:
    samples = [sample(k, size=32) for k in range(2)]
    places = {
        "point": Place(((0.25, 0.5),), ()),
        "points": Place(((0.25, 0.5), (0.75, 0.125)), ()),
        "box": Place((), ((0.125, 0.25, 0.5, 0.75),)),
        "both": Place(((0.25, 0.5),), ((0.125, 0.25, 0.5, 0.75),)),
    }
    found = GeneratedMasks(open_mask_generator(str(sam)), places, CPU)(samples)
    processor = SamProcessor(AutoImageProcessor.from_pretrained(sam, backend="pil"))
    model = SamModel.from_pretrained(sam).eval()
    areas = set()
    for region, place in places.items():
        prompts: dict[str, Any] = {}
        if place.points:
            prompts["input_points"] = [[[[32 * x, 32 * y] for x, y in place.points]]] * 2
        if place.boxes:
            prompts["input_boxes"] = [[[32 * edge for edge in place.boxes[0]]]] * 2
        inputs = processor(images=pictures(samples), return_tensors="pt", **prompts)
        with torch.no_grad():
            outputs = model(**{k: v.float() if v.is_floating_point() else v
                               for k, v in inputs.items() if "sizes" not in k})  # fmt: skip
        masks = processor.image_processor.post_process_masks(
            outputs.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )
        for row, answer in enumerate(found):
            assert not isinstance(answer, ImageError)
            best = int(outputs.iou_scores[row, 0].argmax())
            np.testing.assert_array_equal(answer[region].numpy(), masks[row][0, best].numpy())
            areas.add(float(answer[region].mean()))
    assert len(areas) > 4, "places and images must matter for this test"


def test_neighbours_of_an_image_do_not_change_its_masks(
    parser: Path, sam: Path, sample: Any
) -> None:
    samples = [sample(k, size=32) for k in range(3)]
    parse = SemanticMasks(open_segmenter(str(parser)), {"skin": (1, 2)}, CPU)
    generate = GeneratedMasks(open_mask_generator(str(sam)), {"it": Place(((0.5, 0.5),), ())}, CPU)
    for provider in (parse, generate):
        for row, together in enumerate(provider(samples)):
            (alone,) = provider(samples[row : row + 1])
            assert not isinstance(together, ImageError)
            assert not isinstance(alone, ImageError)
            for region, mask_HW in alone.items():
                # Kernels round differently in other batches: a pixel on the edge may turn.
                assert float((mask_HW - together[region]).abs().mean()) < 0.01


def test_classes_are_known_without_torch_and_hashes_follow_the_content(
    parser: Path, sam: Path, tmp_path: Path
) -> None:
    assert class_names(open_segmenter(str(parser))) == dict(enumerate(NAMES))
    before = segmenter_sha256(str(parser)), mask_generator_sha256(str(sam))
    copies = [Path(shutil.copytree(each, tmp_path / each.name)) for each in (parser, sam)]
    assert (segmenter_sha256(str(copies[0])), mask_generator_sha256(str(copies[1]))) == before
    for copy in copies:
        path = copy / "preprocessor_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"image_mean": [0.1, 0.2, 0.3]}))
    after = segmenter_sha256(str(copies[0])), mask_generator_sha256(str(copies[1]))
    assert len({*before, *after}) == 4


@pytest.mark.parametrize("key", ["image_processor_type", "feature_extractor_type"])
def test_processors_under_their_names_of_old_are_read(
    parser: Path, sample: Any, tmp_path: Path, key: str
) -> None:
    """Face parsers on the hub were saved when processors were called feature extractors."""
    old = Path(shutil.copytree(parser, tmp_path / "old"))
    path = old / "preprocessor_config.json"
    values = json.loads(path.read_text())
    del values["image_processor_type"]
    path.write_text(json.dumps(values | {key: "SegformerFeatureExtractor"}))
    samples, regions = [sample(k, size=48) for k in range(2)], {"skin": (1, 2)}
    new_masks = SemanticMasks(open_segmenter(str(parser)), regions, CPU)(samples)
    old_masks = SemanticMasks(open_segmenter(str(old)), regions, CPU)(samples)
    for before, after in zip(new_masks, old_masks, strict=True):
        assert not isinstance(before, ImageError)
        assert not isinstance(after, ImageError)
        assert torch.equal(before["skin"], after["skin"])


def test_unusable_folders_are_refused(parser: Path, sam: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelProblem, match="expected model_type 'sam', got 'segformer'"):
        open_mask_generator(str(parser))
    with pytest.raises(ModelProblem, match="expected a semantic segmenter"):
        SemanticMasks(open_segmenter(str(sam)), {}, CPU)
    with pytest.raises(ModelProblem, match="expected a folder in transformers format"):
        open_segmenter("jonathandinu/face-parsing")
    cut = Path(shutil.copytree(parser, tmp_path / "cut"))
    path = cut / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_center_crop": True}))
    with pytest.raises(ModelProblem, match="keeps the whole image, but its do_center_crop is true"):
        SemanticMasks(open_segmenter(str(cut)), {}, CPU)
    small = Path(shutil.copytree(sam, tmp_path / "small"))
    path = small / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"size": {"longest_edge": 32}}))
    with pytest.raises(ModelProblem, match="scales the longest edge to 64"):
        GeneratedMasks(open_mask_generator(str(small)), {}, CPU)
    (cut / "preprocessor_config.json").unlink()
    with pytest.raises(ModelProblem, match=r"preprocessor_config\.json"):
        open_segmenter(str(cut))
    pickled = Path(shutil.copytree(sam, tmp_path / "pickled"))
    (pickled / "model.safetensors").unlink()
    (pickled / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelProblem, match=r"only pytorch_model\.bin.*never"):
        open_mask_generator(str(pickled))


def test_an_image_for_which_a_network_gives_no_numbers_is_an_error_of_that_image(
    parser: Path, sample: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = SemanticMasks(open_segmenter(str(parser)), {"skin": (1,)}, CPU)
    forward = SegformerForSemanticSegmentation.forward

    def broken(model: Any, **inputs: Any) -> Any:
        answer = forward(model, **inputs)
        answer.logits[1] = torch.nan
        return answer

    monkeypatch.setattr(SegformerForSemanticSegmentation, "forward", broken)
    first, second, third = provider([sample(k) for k in range(3)])
    assert isinstance(second, ImageError)
    assert second.kind == "not_finite"
    assert not isinstance(first, ImageError)
    assert not isinstance(third, ImageError)
