"""How far regions learned without labels are the parts of a face: the job learns them, other faces'
exact masks name them, and yet other faces' masks are what they are measured against.

Shape suffixes: B faces, P parts, K clusters, H, W of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lib.demo.faces import CLASSES, masks, render, sample_factors
from lib.demo.shards import write_shards
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.masks.automatic import AutomaticMasks
from lib.masks.cluster_files import RegionModel
from lib.masks.cluster_names import read_regions
from lib.receipts import ShardTask
from lib.records import Sample
from pipelines.config import Input, Output, RunConfig
from pipelines.engine import load_model
from pipelines.presets import demo_regions
from pipelines.region_model import feature_reader
from pipelines.run_claim import run_claim
from pipelines.worker import ShardWorker

PARTS = ("eyes", "mouth", "hair", "skin", "background")
_PART_OF = {"nose": "skin"}
"""Every other class of the generator is its own part; brows are one, and not asked for."""
NAMES = (*PARTS, "brows")
_SHARDS = 4


@dataclass(frozen=True, slots=True)
class Overlap:
    """Intersection over union of every part."""

    mean: dict[str, float]
    """Over faces."""
    worst: dict[str, float]
    """Of one face."""
    clusters: dict[str, int]
    """How many clusters have the name."""


def learned(folder: Path, *, faces: int, seed: int) -> RegionModel:
    """What `pipeline: region_model` with the preset's settings learns from `faces` faces in four
    shards.
    """
    urls = write_shards(
        str(folder / f"faces-{seed}"), shards=_SHARDS, faces_per_shard=faces // _SHARDS, seed=seed
    )
    config = config_of(str(folder / f"run-{seed}"), urls)
    run = RunFolder(config.output.folder)
    record = run_claim(config)
    run.open_run(record)
    run.add_inputs({_name(url): url for url in urls})
    worker = ShardWorker(config.model_dump_json(), str(record["fingerprint"]))
    for url in urls:
        if _name(url) not in run.committed():
            worker.run(ShardTask(_name(url), url, 1))
    finalize(run)
    return read_regions(run.root).model


def config_of(folder: str, urls: list[str]) -> RunConfig:
    """The preset `demo-regions` on these shards."""
    return demo_regions().model_copy(
        update={"input": Input(shards=tuple(urls)), "output": Output(folder=folder)}
    )


def provider(model: RegionModel, regions: dict[str, tuple[int, ...]]) -> AutomaticMasks:
    """The regions as the segment stage has them, with the default for small pieces."""
    config = config_of("unused", ["unused"])
    denoiser, _, _ = load_model(config)
    reader = feature_reader(config, denoiser, model.study.timesteps, model.study.blocks)
    return AutomaticMasks(reader, model, regions, min_component=0.001)


def named(model: RegionModel, *, faces: int, seed: int) -> dict[str, tuple[int, ...]]:
    """Name -> clusters: each has the name of the part that most of its pixels belong to; one
    without a pixel has none.
    """
    factors_BF = sample_factors(faces, seed)
    look = provider(model, {})
    image_BCHW = render(factors_BF).image_BCHW
    numbers_BHW = torch.cat([look.numbers(part)[0] for part in image_BCHW.split(8)])
    truth_BHW = parts(factors_BF)
    found: dict[str, list[int]] = {name: [] for name in NAMES}
    for k in range(model.clusters):
        counts = torch.bincount(truth_BHW[numbers_BHW == k], minlength=len(NAMES))
        if counts.sum():
            found[NAMES[int(counts.argmax())]].append(k)
    return {name: tuple(clusters) for name, clusters in found.items()}


def parts(factors_BF: Tensor) -> Tensor:
    """Of every pixel the part that covers most of it, as a number in NAMES: (B, H, W)."""
    segmentation_BKHW = masks(factors_BF).segmentation_BKHW
    cover_BPHW = torch.zeros(len(factors_BF), len(NAMES), *segmentation_BKHW.shape[2:])
    for number, name in enumerate(CLASSES):
        cover_BPHW[:, NAMES.index(_PART_OF.get(name, name))] += segmentation_BKHW[:, number]
    return cover_BPHW.argmax(1)


def overlap(
    model: RegionModel, names: dict[str, tuple[int, ...]], samples: list[Sample], seed: int
) -> Overlap:
    """Of the masks that the segment stage would give for `samples`, the faces of `seed`."""
    asked = {name: names[name] for name in PARTS if names[name]}
    masks_of = provider(model, asked)
    truth_BHW = parts(sample_factors(len(samples), seed))
    found: dict[str, list[float]] = {name: [] for name in PARTS}
    for start in range(0, len(samples), 8):
        for row, answer in enumerate(masks_of(samples[start : start + 8]), start):
            if isinstance(answer, Exception):
                raise answer
            for name in PARTS:
                true_HW = truth_BHW[row] == NAMES.index(name)
                mask_HW = answer[name] > 0.5 if name in answer else torch.zeros_like(true_HW)
                union = (mask_HW | true_HW).sum().clamp_min(1)
                found[name].append(float((mask_HW & true_HW).sum() / union))
    return Overlap(
        {name: sum(values) / len(values) for name, values in found.items()},
        {name: min(values) for name, values in found.items()},
        {name: len(names[name]) for name in PARTS},
    )


def _name(url: str) -> str:
    return Path(url).stem
