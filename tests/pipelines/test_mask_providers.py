"""From the config to providers: only those that are needed are loaded, and what needs no network
can be had again from a sample's files.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import distance_transform_edt

from lib.files.images import Geometry
from lib.problems import ModelProblem
from lib.records import Inverted, Sample
from lib.sampling.sampler import plain_latent
from pipelines.config import RunConfig
from pipelines.file_masks import masks_of_files
from pipelines.mask_providers import build_segmenter

ENGINE: Any = SimpleNamespace(
    denoiser=SimpleNamespace(image_size=16, device=torch.device("cpu"), passes=1)
)
REGIONS = {
    "left": {"box": [0, 0, 0.5, 1]},
    "frame": {"file": "frame.png"},
    "eyes": {"from": "parts", "labels": ["eyes"]},
    "hair": {"from": "map", "labels": ["hair"]},
    "head": {"from": "parser", "labels": [1]},
}
PROVIDERS = {
    "parts": {"kind": "part_files"},
    "map": {"kind": "label_map", "file": "labels.png", "classes": "celebamask_hq"},
    "parser": {"kind": "semantic", "model": "nowhere"},
}


@pytest.fixture
def config(shards: ModuleType, tmp_path: Path) -> RunConfig:
    segment = {"regions": REGIONS, "providers": PROVIDERS, "dilation": 2 / 16}
    made: RunConfig = shards.config("embedded", "in.tar", tmp_path, segment=segment)
    return made


@pytest.fixture
def sample(shards: ModuleType) -> Sample:
    values = np.zeros((16, 16), np.uint8)
    values[:3] = 13
    files = {
        "frame.png": shards.mask(16, 16, (0, 0, 16, 4)),
        "l_eye.png": shards.mask(16, 16, (2, 5, 5, 7)),
        "r_eye.png": shards.mask(16, 16, (10, 5, 13, 7)),
        "labels.png": shards.encoded(Image.fromarray(values)),
    }
    geometry = Geometry(16, 16, 0, 0, 16, 16, 16, "PNG", "RGB", 1)
    return Sample("s", 0, "k", torch.zeros(3, 16, 16), geometry, files, 0)


def test_only_providers_of_wanted_regions_are_loaded(config: RunConfig, sample: Sample) -> None:
    inverted = Inverted(sample, plain_latent(torch.zeros(3, 16, 16)), {})
    wanted = build_segmenter(config, ENGINE, ["hair", "left"])
    (found,) = wanted([inverted], pytest.fail)
    assert [region.name for region in found.regions] == ["left", "hair"]
    with pytest.raises(ModelProblem, match="nowhere is no folder"):
        build_segmenter(config, ENGINE)


def test_masks_from_files_are_those_of_the_run(config: RunConfig, sample: Sample) -> None:
    found = masks_of_files(
        config.segment, sample.files, sample.geometry, max_pixels=config.input.max_pixels
    )
    assert sorted(found) == ["eyes", "frame", "hair", "left"]
    inverted = Inverted(sample, plain_latent(torch.zeros(3, 16, 16)), {})
    (segmented,) = build_segmenter(config, ENGINE, list(found))([inverted], pytest.fail)
    for region in segmented.regions:
        assert torch.equal(found[region.name], region.mask_HW)
    eyes = np.zeros((16, 16))
    eyes[5:7, 2:5] = eyes[5:7, 10:13] = 1
    np.testing.assert_array_equal(found["eyes"], distance_transform_edt(eyes == 0) <= 2)


def test_a_file_that_is_not_there_takes_only_its_own_regions_away(
    config: RunConfig, sample: Sample
) -> None:
    files = {name: data for name, data in sample.files.items() if name != "labels.png"}
    files["frame.png"] = b"no picture"
    found = masks_of_files(config.segment, files, sample.geometry, max_pixels=10_000)
    assert sorted(found) == ["eyes", "left"]
