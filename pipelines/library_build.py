"""`library build`: the directions of many images, found in one run or several, made into few."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor

from lib.direction import Direction, content_id, stored
from lib.directions.library_rows import RECORD, SHEETS
from lib.directions.library_store import DTYPE, Library, write_library
from lib.discovery.clustering import clusters
from lib.discovery.shared_subspace import mean_directions, shared_directions
from lib.files import storage
from lib.problems import ConfigProblem
from pipelines.library_sources import Group, Sources, read_sources

PER_IMAGE = frozenset(
    {"jacobian", "localised", "null_space", "jive", "ajive", "pullback", "text", "reference"}
)
"""Methods that find directions in one image; those of all others are kept as they are."""

MERGES = ("cluster", "subspace", "frechet")


@dataclass(frozen=True, slots=True)
class Merge:
    """How directions are merged."""

    method: str = "cluster"
    """cluster: one direction a cluster of lines. subspace: eigenvectors of the mean projector of
    the images' spans, which also finds what every image has, but in other combinations. frechet:
    the basis of the spans' Fréchet mean, for images with equally many directions.
    """
    angle_degrees: float = 45.0
    """Largest angle between a direction and what it was merged into."""
    min_support: int = 1
    """Directions of fewer images are left out."""

    def __post_init__(self) -> None:
        if self.method not in MERGES:
            raise ConfigProblem(f"expected a method of {', '.join(MERGES)}, got {self.method!r}")
        if not 0 < self.angle_degrees < 90:
            raise ConfigProblem(
                f"expected an angle between 0 and 90 degrees, got {self.angle_degrees:g}"
            )
        if self.min_support < 1:
            raise ConfigProblem(f"expected a support of 1 or more, got {self.min_support}")


@dataclass(frozen=True, slots=True)
class GroupReport:
    """What became of one group of directions."""

    region: str
    method: str
    found: int
    kept: int
    """Directions in the library."""
    largest_support: int


def build_library(
    paths: Sequence[str], output: str, merge: Merge, *, overwrite: bool = False
) -> tuple[Library, list[GroupReport]]:
    """Merge the directions of `paths` by region, method, timesteps, window and label; write the
    library.

    Directions that are of many images already (PCA, supervised, combined by hand) are kept as they
    are, and so are those near no other. The result does not depend on the order of `paths`.

    Raises:
        ConfigProblem: nothing to merge, directions that do not fit together, no direction with the
            support asked for, or `output` holds something.
    """
    _refuse_occupied(output, overwrite)
    sources = read_sources(paths)
    kept: list[Direction] = []
    reports = []
    for group in sources.places:
        merged = _merged(sources, group, merge)
        kept += merged
        reports.append(
            GroupReport(
                region=group[0],
                method=group[1],
                found=len(sources.places[group]),
                kept=len(merged),
                largest_support=max((d.support for d in merged), default=0),
            )
        )
    if not kept:
        raise ConfigProblem(
            f"expected directions of at least {merge.min_support} images, but of the"
            f" {sources.count} directions none is; ask for less with --min-support, or merge more"
            " with a larger --angle"
        )
    details = {
        "built": {
            "method": merge.method,
            "angle_degrees": merge.angle_degrees,
            "min_support": merge.min_support,
            "directions": sources.count,
            "files": [file.entry for file in sources.files],
            "runs": list(sources.fingerprints),
            "inputs": [{"shard": shard, "sha256": sha256} for shard, sha256 in sources.inputs],
            "images": [{"shard": shard, "index": index} for shard, index in sources.images],
        }
    }
    library = write_library(output, details, kept)
    sheets = storage.join(output, SHEETS)
    for name in storage.list_names(sheets):
        storage.delete(storage.join(sheets, name))
    return library, reports


def _refuse_occupied(output: str, overwrite: bool) -> None:
    names = storage.list_names(output)
    if "run.json" in names:
        raise ConfigProblem(
            f"{storage.redact(output)} is the folder of a run; give the library one of its own"
        )
    if RECORD in names and not overwrite:
        raise ConfigProblem(
            f"{storage.redact(output)} holds a library already, with its labels and scores; give"
            " another folder, or --replace to lose them"
        )


def _merged(sources: Sources, group: Group, merge: Merge) -> list[Direction]:
    v_ND, directions = sources.load(group)
    if group[1] not in PER_IMAGE:
        return directions
    by_cluster = merge.method == "cluster"
    parts = _clusters(v_ND, directions, merge) if by_cluster else _subspace(v_ND, directions, merge)
    return [direction for direction in parts if direction.support >= merge.min_support]


def _clusters(v_ND: Tensor, directions: Sequence[Direction], merge: Merge) -> list[Direction]:
    weight_N = torch.tensor([float(d.support) for d in directions])
    return [
        directions[cluster.members[0]]
        if len(cluster.members) == 1
        else _from_members(
            [directions[row] for row in cluster.members], cluster.mean_D, cluster.spread, merge, {}
        )
        for cluster in clusters(v_ND, merge.angle_degrees, weight_N=weight_N)
    ]


def _subspace(v_ND: Tensor, directions: Sequence[Direction], merge: Merge) -> list[Direction]:
    numbers: dict[tuple[object, ...], int] = {}
    images = [numbers.setdefault(_image(d), len(numbers)) for d in directions]
    if merge.method == "frechet":
        found = mean_directions(v_ND, images, merge.angle_degrees)
    else:
        most = max(Counter(images).values())
        found = shared_directions(v_ND, images, most, merge.angle_degrees)
    return [
        _from_members(
            [directions[row] for row in shared.nearest],
            shared.vector_D,
            shared.spread,
            merge,
            {"share": shared.share},
        )
        for shared in found
    ]


def _image(direction: Direction) -> tuple[object, ...]:
    if direction.shard is None:  # merged before: as an image of its own
        return (direction.id,)
    return (direction.shard, direction.index, direction.key)


def _from_members(
    members: Sequence[Direction],
    vector_D: Tensor,
    spread: float,
    merge: Merge,
    more: dict[str, float],
) -> Direction:
    """One direction for `members`, the strongest first; `vector_D` is on the side of the first."""
    first = members[0]
    vector_SCYX = stored(vector_D.view(first.vector_SCYX.shape), DTYPE)
    images = {_image(d): d.support for d in members}
    products = {_image(d): (d.jvp_count, d.vjp_count) for d in members}
    masks = {d.mask_sha256 for d in members}
    angles = [d.angle for d in members]
    return replace(
        first,
        vector_SCYX=vector_SCYX,
        id=content_id(vector_SCYX, first.space, first.h_layer, first.model, first.timesteps),
        parameters={
            "merged": merge.method,
            "angle_degrees": merge.angle_degrees,
            "members": len(members),
        }
        | more,
        mask_sha256=masks.pop() if len(masks) == 1 else "",
        shard=None,
        index=None,
        key=None,
        singular_value=fmean(d.singular_value for d in members),
        gap=None,
        residual=None,
        angle=None if any(a is None for a in angles) else max(a for a in angles if a is not None),
        converged=all(d.converged for d in members),
        jvp_count=sum(jvp for jvp, _ in products.values()),
        vjp_count=sum(vjp for _, vjp in products.values()),
        h_norm=fmean(d.h_norm for d in members),
        unit_strength=fmean(d.unit_strength for d in members),
        parents=tuple(d.id for d in members),
        support=sum(images.values()),
        spread=spread,
        scores=None,
    )
