"""Regions without labels against the generator's masks: `python -m benchmarks.regions`.

Overlap with every part on held-out faces, for several sets of faces to learn from, and how local
directions are that were found with them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Annotated

import torch
import typer

from benchmarks import region_locality as locality
from benchmarks.embedded import HELD_OUT_SEED, held_out, load_bench
from benchmarks.locality import NUM_STEPS, TIMESTEP, WINDOW
from benchmarks.locality_statistics import bootstrap_median
from benchmarks.machine import describe
from benchmarks.region_locality import Edited
from benchmarks.region_overlap import PARTS, learned, named, overlap, provider
from benchmarks.stage_cache import kept
from lib.masks.cluster_files import RegionModel
from lib.provenance import git_commit

LEARNED_FROM, NAMED_ON, MEASURED_ON, EDITED = 64, 32, 32, 8
SEEDS = (5000, 6000, 7000)
"""Of the faces to learn from; directions are found with the first."""
NAMING_SEED = 8000


def run(
    save: Path, seeds: Sequence[int], edits: int
) -> tuple[dict[int, RegionModel], dict[int, list[Edited]]]:
    """Region models by seed, and edits by face; both go on where a stopped run was."""
    models = {
        seed: kept(
            save,
            f"regions-{seed}",
            (LEARNED_FROM, git_commit()),
            lambda seed=seed: learned(save, faces=LEARNED_FROM, seed=seed),
        )
        for seed in seeds
    }
    model = models[seeds[0]]
    names = named(model, faces=NAMED_ON, seed=NAMING_SEED)
    masks_of = provider(model, {region: names[region] for region in locality.REGIONS})
    bench = load_bench(NUM_STEPS)
    samples, zones = held_out(edits)
    rows = {}
    for sample, zone in zip(samples, zones, strict=True):

        def measured(sample=sample, zone=zone) -> list[Edited]:
            inverted = bench.inverted(
                [sample],
                last=bench.grid.last_node(WINDOW[0]),
                keep=[bench.grid.nearest_node(TIMESTEP)],
                refinements=2,
            )
            return locality.edited(bench, inverted[0], zone, masks_of)

        settings = (edits, seeds[0], names, locality.CONDITIONS, git_commit())
        rows[sample.index] = kept(save, f"face-{sample.index}", settings, measured)
        typer.echo(f"face {sample.index} edited", err=True)
    return models, rows


def overlap_table(models: dict[int, RegionModel]) -> None:
    """Print the overlap of every model with every part."""
    samples, _ = held_out(MEASURED_ON)
    print(
        f"\nintersection over union, {MEASURED_ON} held-out faces: mean [worst face], clusters"
        f"\nlearned from   {'mean':5s}  " + "".join(f"{name:20s}" for name in PARTS)
    )
    for seed, model in models.items():
        names = named(model, faces=NAMED_ON, seed=NAMING_SEED)
        found = overlap(model, names, samples, HELD_OUT_SEED)
        cells = [
            f"{found.mean[part]:.3f} [{found.worst[part]:.2f}] {found.clusters[part]:2d}"
            for part in PARTS
        ]
        mean = sum(found.mean.values()) / len(PARTS)
        print(f"faces of {seed}  {mean:.3f}  " + "".join(f"{cell:20s}" for cell in cells))


def locality_table(rows: dict[int, list[Edited]]) -> None:
    """Print the ROIR of directions found with either kind of mask."""
    print(
        f"\nROIR, {len(rows)} held-out faces; median; ratio paired by face [95 %]"
        "\nregion   true   automatic  ratio               worst  reached"
    )
    ratios_of_all = []
    for region in locality.REGIONS:
        found = [edit for face in rows.values() for edit in face if edit.region == region]
        by_kind = {k: [e for e in found if e.masks == k] for k in ("true", "automatic")}
        pairs = zip(by_kind["automatic"], by_kind["true"], strict=True)
        ratios = [a.roir / t.roir for a, t in pairs]
        ratios_of_all += ratios
        true, ours = (median(e.roir for e in by_kind[k]) for k in ("true", "automatic"))
        reached = sum(edit.reached for edit in found)
        low, high = bootstrap_median(ratios)
        print(
            f"{region:7s}  {true:.3f}  {ours:.3f}      {median(ratios):.2f} [{low:.2f}-{high:.2f}]"
            f"    {max(ratios):5.2f}  {reached}/{len(found)}"
        )
    low, high = bootstrap_median(ratios_of_all)
    print(f"all      {' ' * 17}  {median(ratios_of_all):.2f} [{low:.2f}-{high:.2f}]")


def main(
    edits: Annotated[int, typer.Option(help="Faces to edit.")] = EDITED,
    save: Annotated[
        Path | None, typer.Option(help="Folder of finished stages; a stopped run goes on.")
    ] = None,
) -> None:
    """Learn, name, measure, edit and print the tables."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        models, rows = run(save or Path(folder), SEEDS, edits)
        print(describe())
        print(
            f"learned from {LEARNED_FROM} faces each by the preset demo-regions; named by majority"
            f" on {NAMED_ON} faces of seed {NAMING_SEED}; measured on faces of seed"
            f" {HELD_OUT_SEED}"
        )
        print("the nose counts as skin; brows are a part of their own, which is not asked for")
        overlap_table(models)
        print(f"\n{locality.CONDITIONS}")
        locality_table(rows)


if __name__ == "__main__":
    typer.run(main)
