"""Masks that are not stored with the edits, had again from the input shards."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.report.originals import OriginalsReader
from pipelines.report.pictures import Pictures, Sides
from pipelines.report.samples import Sample

REGIONS = {
    "left": {"box": [0, 0, 0.5, 1]},
    "frame": {"file": "frame.png"},
    "eyes": {"from": "parts", "labels": ["eyes"]},
    "hair": {"from": "map", "labels": ["hair"]},
    "head": {"from": "parser", "labels": ["skin"]},
}
PROVIDERS = {
    "parts": {"kind": "part_files"},
    "map": {"kind": "label_map", "file": "labels.png", "classes": "bisenet"},
    "parser": {"kind": "semantic", "model": "nowhere"},
}


@pytest.mark.parametrize("dilation", [0.0, 2 / 16])
def test_masks_of_files_are_shown_as_the_run_used_them_and_those_of_networks_are_told_of(
    shards: ModuleType, tmp_path: Path, dilation: float
) -> None:
    values = np.zeros((16, 16), np.uint8)
    values[:4] = 17
    url = shards.write_tar(
        tmp_path / "in-0.tar",
        [
            ("a.png", shards.encoded(shards.picture(0))),
            ("a.frame.png", shards.mask(16, 16, (0, 0, 16, 8))),
            ("a.l_eye.png", shards.mask(16, 16, (2, 8, 4, 10))),
            ("a.r_eye.png", shards.mask(16, 16, (12, 8, 14, 10))),
            ("a.labels.png", shards.encoded(Image.fromarray(values))),
        ],
    )
    segment = {"regions": REGIONS, "providers": PROVIDERS, "dilation": dilation}
    config = shards.config("embedded", url, tmp_path / "run", segment=segment)
    folder: Any = SimpleNamespace(inputs=lambda: {"in-0": str(url)})
    row = {"source_width": 16, "source_height": 16, "crop_left": 0, "crop_top": 0,
           "crop_width": 16, "crop_height": 16}  # fmt: skip
    digest = hashlib.sha256(url.read_bytes()).hexdigest()
    sample = Sample("in-0", 0, "a", "in-0.tar", digest, 0, (row,))
    reader, pictures = OriginalsReader(folder, config), Pictures({}, {}, {}, [])
    for _ in range(2):
        reader.add([sample], Sides(16, 16), Pictures({}, {}, {}, []))
    reader.add([sample], Sides(16, 16), pictures)
    assert reader.notices == [
        "The masks of head come from networks and are stored with output.layout pairs alone: they"
        " are not shown."
    ]
    assert {region for _, _, region in pictures.masks} == {"left", "frame", "eyes", "hair"}
    wider = round(16 * dilation)
    rows, columns = np.indices((16, 16))
    expected = {"left": columns < 8 + wider, "frame": rows < 8 + wider, "hair": rows < 4 + wider}
    for region, mask in expected.items():
        np.testing.assert_array_equal(pictures.masks["in-0", 0, region], mask)
    assert pictures.masks["in-0", 0, "eyes"].sum() == (8 if not dilation else 2 * 24)
