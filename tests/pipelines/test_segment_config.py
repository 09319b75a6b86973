"""The section `segment`: which mistakes are refused before anything is loaded, which files belong
to masks, and what of it enters the fingerprint.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.config_file import load_config
from pipelines.fingerprint_fields import fingerprint_fields
from pipelines.inputs import expand_inputs
from pipelines.located import located
from pipelines.plan import make_plan
from pipelines.segment_agreement import claimed_files
from pipelines.segment_config import Semantic

PROVIDERS = """
    parts: {kind: part_files}
    map: {kind: label_map, file: labels.png, classes: bisenet}
    parser: {kind: semantic, model: parser}
    sam: {kind: mask_generation, model: sam}
"""


def mistakes(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "run.yaml"
    path.write_text(f"preset: demo\n{text}")
    with pytest.raises(ConfigProblem) as caught:
        load_config(str(path))
    return [line.strip() for line in str(caught.value).splitlines()]


def region(source: str, providers: str = PROVIDERS) -> str:
    return f"segment:\n  regions: {{eyes: {source}}}\n  providers: {{{flow(providers)}}}\n"


def flow(providers: str) -> str:
    return ", ".join(line.strip() for line in providers.strip().splitlines())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{from: parsr, labels: [eyes]}",
            "segment.regions.eyes.from: no provider is called 'parsr'; did you mean 'parser'?"
            " segment.providers defines ['map', 'parser', 'parts', 'sam']",
        ),
        (
            "{from: parts, labels: [eyess]}",
            "segment.regions.eyes.labels: no class is called 'eyess'; the nearest is 'eyes'",
        ),
        (
            "{from: parts, labels: [4]}",
            "segment.regions.eyes.labels: part files have names and no numbers, got 4",
        ),
        (
            "{from: map, labels: [19]}",
            "segment.regions.eyes.labels: no class has the number 19; expected one from 0 to 18",
        ),
        (
            "{from: sam, labels: [eyes]}",
            "segment.regions.eyes.labels: sam is of kind mask_generation, which has no classes;"
            " expected points or within",
        ),
        (
            "{from: parser, points: [[0.5, 0.5]]}",
            "segment.regions.eyes.points: parser is of kind semantic, which takes no place;"
            " expected labels",
        ),
        (
            "{from: map, within: [0, 0, 1, 1]}",
            "segment.regions.eyes.within: map is of kind label_map, which takes no place",
        ),
        (
            "{from: sam, points: [[0.5, 1.5]]}",
            "segment.regions.eyes.points.0.1: got 1.5, expected less than or equal to 1",
        ),
        (
            "{from: sam, points: [[0.5, -0.5]]}",
            "segment.regions.eyes.points.0.1: got -0.5, expected greater than or equal to 0",
        ),
        (
            "{from: sam, within: [0.6, 0, 0.5, 1]}",
            "segment.regions.eyes.within: got [0.6, 0, 0.5, 1], expected left < right and top <",
        ),
        ("{from: sam, poinst: [[0, 0]]}", "segment.regions.eyes.poinst: unknown key; did you mean"),
        ("{from: parser, labels: []}", "segment.regions.eyes.labels: got [], expected at least 1"),
        ("{from: parts}", "segment.regions.eyes.labels: is missing, and is required"),
        (
            "{from: parts, labels: [eyes]}",
            "segment.providers.map: no region comes from it; expected one with `from: map`, or no",
        ),
    ],
)
def test_a_region_that_its_provider_cannot_give_is_refused(
    source: str, expected: str, tmp_path: Path
) -> None:
    lines = mistakes(region(source), tmp_path)
    assert any(line.startswith(expected) for line in lines), lines


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        (
            "{kind: semantics, model: m}",
            "segment.providers.it: got kind \"semantics\", expected 'part_files', 'label_map',",
        ),
        ("{model: m}", 'segment.providers.it: got {"model": "m"}, expected a key `kind`: one of'
         " part_files, label_map, semantic, mask_generation, automatic"),
        ("{kind: semantic}", "segment.providers.it.model: is missing, and is required"),
        (
            "{kind: semantic, modle: m}",
            "segment.providers.it.modle: unknown key; did you mean `model`?",
        ),
        ("{kind: part_files, pattern: mask.png}", "segment.providers.it.pattern: got"),
        (
            "{kind: label_map, file: l.png, classes: celeba}",
            'segment.providers.it.classes: got "celeba", expected celebamask_hq or bisenet or'
            " keys and values",
        ),
        (
            "{kind: label_map, file: l.png, classes: {nose: 2, hair: 17}}",
            'segment.providers.it: got {"kind": "label_map", "file": "l.png", "classes": {"nose":'
            ' 2, "hair": 17}}, expected classes of one order, but nose: 2 is of the order'
            " celebamask_hq and hair: 17 of bisenet; the published orders can be had by name:",
        ),
        ("{kind: label_map, file: l.png, classes: {sky: 2, sea: 2}}", "segment.providers.it: got"),
    ],
)  # fmt: skip
def test_a_provider_that_is_none_is_refused(provider: str, expected: str, tmp_path: Path) -> None:
    lines = mistakes(region("{from: it, labels: [eyes]}", f"it: {provider}"), tmp_path)
    assert any(line.startswith(expected) for line in lines), lines


def test_side_files_of_masks_are_never_images(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(
        "preset: demo\nsegment:\n  regions:\n    mouth: {file: mouth.png}\n"
        "    eyes: {from: parts, labels: [eyes]}\n    hair: {from: map, labels: [hair]}\n"
        "  providers:\n    parts: {kind: part_files, pattern: 'part-{}.png'}\n"
        "    map: {kind: label_map, file: labels.png, classes: {hair: 2, face: 1}}\n"
    )
    found = claimed_files(load_config(str(path)).segment)
    assert {"mouth.png", "labels.png", "part-l_eye.png", "part-hat.png"} <= found
    assert len(found) == 2 + 18


def networks(tmp_path: Path, mask_networks: ModuleType) -> dict[str, Any]:
    parser = mask_networks.segformer(tmp_path / "parser", ("background", "l_eye", "r_eye", "hair"))
    sam = mask_networks.sam(tmp_path / "sam")
    return {
        "regions": {
            "eyes": {"from": "parser", "labels": ["eyes"]},
            "hair": {"from": "sam", "points": [[0.5, 0.1]]},
        },
        "providers": {
            "parser": {"kind": "semantic", "model": str(parser)},
            "sam": {"kind": "mask_generation", "model": str(sam)},
        },
    }


def test_networks_are_in_the_plan_and_in_the_fingerprint_by_content(
    tiny_checkpoint: Path, shards: ModuleType, mask_networks: ModuleType, tmp_path: Path
) -> None:
    segment = networks(tmp_path, mask_networks)
    pattern = shards.write_shards(tmp_path / "in", 1, 2)

    def made(**changed: Any) -> RunConfig:
        config: RunConfig = shards.config(
            tiny_checkpoint, pattern, tmp_path / "run", segment=segment | changed
        )
        return config

    config = made()
    assert RunConfig.model_validate_json(config.model_dump_json()) == config
    rows = dict(make_plan(config, expand_inputs(config.input.shards)).rows())
    assert rows["mask networks, a pass each an image"] == "parser, sam"
    before = fingerprint_fields(config)["segment"]
    assert str(tmp_path) not in str(before)
    copy = Path(shutil.copytree(tmp_path / "parser", tmp_path / "copy"))
    moved = segment["providers"] | {"parser": {"kind": "semantic", "model": str(copy)}}
    assert fingerprint_fields(made(providers=moved))["segment"] == before
    other = mask_networks.segformer(copy, ("background", "l_eye", "r_eye", "hat", "hair"))
    assert other == copy
    assert fingerprint_fields(made(providers=moved))["segment"] != before

    nose = {"eyes": {"from": "parser", "labels": ["nose"]}, "hair": segment["regions"]["hair"]}
    refused = made(regions=nose)
    for check in (
        lambda: make_plan(refused, expand_inputs(refused.input.shards)),
        lambda: fingerprint_fields(refused),
    ):
        with pytest.raises(
            ConfigProblem, match=r"segment\.regions\.eyes\.labels: .*no class is called 'nose'"
        ):
            check()


def test_workers_get_absolute_paths(
    monkeypatch: pytest.MonkeyPatch, shards: ModuleType, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    segment = {
        "regions": {"eyes": {"from": "parser", "labels": [1]}},
        "providers": {"parser": {"kind": "semantic", "model": "nets/parser"}},
    }
    config = located(shards.config("embedded", "in.tar", tmp_path / "run", segment=segment))
    provider = config.segment.providers["parser"]
    assert isinstance(provider, Semantic)
    assert provider.model == str(tmp_path / "nets/parser")
