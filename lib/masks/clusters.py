"""Parts of the image without labels: features of the network at every pixel, clustered with centres
that all images share (the features of Tang et al. 2023 and Baranchuk et al. 2022, k-means over the
whole dataset).

Every shard leaves sums of its points and a coreset: few centres with weights that stand for all of
them. Merging adds the sums up exactly; centres are merged by clustering them again, in the order
given, so the result is that of the order of shards, whoever did the work. Pure; float64 on the CPU.

Shape suffixes: N points, D entries of a point, G groups of entries, K clusters, M distinct centres
of a coreset; B batch, C channels of a map, Y, X its own height and width, H, W of the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from lib.masks.kmeans import lloyd, means, spread_out

_REDUCTION_ROUNDS = 6
"""Of a coreset: its centres need not be at rest, only near the points that they stand for."""
_ROUNDS, _STARTS = 200, 8
_SEED = 20


@dataclass(frozen=True, slots=True)
class Groups:
    """What the entries of a point are: maps of the network, and colours."""

    sizes: tuple[int, ...]
    """Entries of each group, which add up to D."""
    weights: tuple[float, ...]
    """Root mean square distance from the mean that each group is scaled to."""


@dataclass(frozen=True, slots=True)
class Points:
    """Points of some images, or what stands for them."""

    images: int
    sum_D: Tensor
    """float64, of all points; exact under merging."""
    square_D: Tensor
    """Sum of squares, likewise."""
    centres_MD: Tensor
    """float64, in the features' own units."""
    weight_M: Tensor
    """Points each centre stands for, float64; whole numbers."""

    @property
    def count(self) -> int:
        """Points in all."""
        return int(self.weight_M.sum())


@dataclass(frozen=True, slots=True)
class Clusters:
    """The centres that every image's pixels are compared with; the largest cluster first."""

    centres_KD: Tensor
    """float32, in the features' own units."""
    scale_G: Tensor
    """float32: a group's entries are multiplied by it before distances are taken."""
    share_K: Tensor
    """float32: part of all points that was nearest to each."""
    spread: float
    """Mean squared distance to the nearest centre over that to the mean of all points; 0 is
    perfect.
    """


def gathered(points_ND: Tensor, groups: Groups, size: int, *, images: int) -> Points:
    """Of the points of some images, any float dtype, at most `size` centres.

    Raises:
        ValueError: a feature is NaN or infinite, or D is not that of the groups.
    """
    if points_ND.shape[1] != sum(groups.sizes):
        raise ValueError(
            f"expected points of {sum(groups.sizes)} entries, as the groups {groups.sizes} have,"
            f" got {points_ND.shape[1]}"
        )
    if not bool(torch.isfinite(points_ND).all()):
        raise ValueError("clusters need finite features, got NaN or infinity")
    x_ND = points_ND.detach().double().cpu()
    whole = Points(images, x_ND.sum(0), (x_ND**2).sum(0), x_ND, x_ND.new_ones(len(x_ND)))
    return reduced(whole, groups, size)


def merged(parts: Sequence[Points]) -> Points:
    """All parts together, in the order given; nothing is reduced, nothing lost.

    Raises:
        ValueError: there is no part, or the parts have different widths.
    """
    if not parts:
        raise ValueError("merging points needs at least one part, got none")
    widths = sorted({len(part.sum_D) for part in parts})
    if len(widths) > 1:
        raise ValueError(f"points of one width are expected, got widths {widths}")
    return Points(
        sum(part.images for part in parts),
        torch.stack([part.sum_D for part in parts]).sum(0),
        torch.stack([part.square_D for part in parts]).sum(0),
        torch.cat([part.centres_MD for part in parts]),
        torch.cat([part.weight_M for part in parts]),
    )


def reduced(points: Points, groups: Groups, size: int) -> Points:
    """At most `size` centres, each the mean of those it stands for; the sums stay as they are."""
    if len(points.weight_M) <= size:
        return points
    scale_D = _wide(_scale(points, groups), groups)
    x_MD = points.centres_MD * scale_D
    generator = torch.Generator().manual_seed(_SEED)
    first = torch.randperm(len(x_MD), generator=generator)[:size].sort().values
    _, nearest_M, _ = lloyd(x_MD, points.weight_M, x_MD[first], _REDUCTION_ROUNDS)
    weight_K, mean_KD = means(points.centres_MD, points.weight_M, nearest_M, size)
    kept = weight_K > 0
    return Points(points.images, points.sum_D, points.square_D, mean_KD[kept], weight_K[kept])


def clustered(points: Points, groups: Groups, count: int) -> Clusters:
    """Weighted k-means: the best of 8 starts by k-means++ (Arthur & Vassilvitskii 2007).

    Raises:
        ValueError: there are fewer distinct points than clusters.
    """
    scale_G = _scale(points, groups)
    scale_D = _wide(scale_G, groups)
    x_MD, weight_M = points.centres_MD * scale_D, points.weight_M
    if len(torch.unique(x_MD, dim=0)) < count:
        raise ValueError(
            f"expected at least {count} different points for {count} clusters, got"
            f" {len(torch.unique(x_MD, dim=0))}: give more images, or ask for fewer clusters"
        )
    generator = torch.Generator().manual_seed(_SEED)
    best_KD, best_M, least = x_MD, weight_M, float("inf")
    for _ in range(_STARTS):
        start_KD = spread_out(x_MD, weight_M, count, generator)
        centres_KD, nearest_M, within = lloyd(x_MD, weight_M, start_KD, _ROUNDS)
        if within < least:
            best_KD, best_M, least = centres_KD, nearest_M, within
    share_K = weight_M.new_zeros(count).index_add_(0, best_M, weight_M) / weight_M.sum()
    order_K = share_K.argsort(descending=True, stable=True)
    mean_D = (weight_M[:, None] * x_MD).sum(0) / weight_M.sum()
    total = float((weight_M * ((x_MD - mean_D) ** 2).sum(1)).sum())
    return Clusters(
        (best_KD[order_K] / scale_D).float(),
        scale_G.float(),
        share_K[order_K].float(),
        least / total if total else 0.0,
    )


def distances(
    maps: Sequence[Tensor], centres_KD: Tensor, scale_G: Tensor, size: tuple[int, int]
) -> Tensor:
    """Squared distance of every pixel to every centre, less what does not depend on the centre:
    (B, K, H, W), float32.

    `maps` (B, C, Y, X), one a group, each of its own size. As |c|^2 - 2 f c is linear in the
    feature f, enlarging it is the same as enlarging the features, and costs K channels, not C.
    """
    found: list[Tensor] = []
    start = 0
    for map_BCYX, scale in zip(maps, scale_G.tolist(), strict=True):
        width = map_BCYX.shape[1]
        c_KC = centres_KD[:, start : start + width].to(map_BCYX)
        start += width
        dot_BKYX = torch.einsum("kc,bcyx->bkyx", c_KC, map_BCYX)
        own_BKYX = scale**2 * ((c_KC**2).sum(1)[:, None, None] - 2 * dot_BKYX)
        found.append(_resized(own_BKYX, size))
    return torch.stack(found).sum(0)


def sampled(maps: Sequence[Tensor], places_P: Tensor, size: tuple[int, int]) -> Tensor:
    """The features (P, D) of one image's pixels, by their flat positions `places_P` in an image of
    `size`: of each map (C, Y, X) what enlarging it bilinearly would give there, without doing so.
    """
    height, width = size
    x_P, y_P = (places_P % width + 0.5) / width, (places_P // width + 0.5) / height
    at_11P2 = (2 * torch.stack([x_P, y_P], dim=-1) - 1)[None, None]
    columns = [
        grid_sample(map_CYX[None], at_11P2.to(map_CYX), padding_mode="border", align_corners=False)
        for map_CYX in maps
    ]
    return torch.cat([column_1C1P[0, :, 0].T for column_1C1P in columns], dim=1)


def to_arrays(points: Points) -> dict[str, NDArray[np.generic]]:
    """For storage: centres as float32, the rest as it is."""
    return {
        "images": np.array([points.images], dtype=np.int64),
        "sum": points.sum_D.numpy(),
        "square": points.square_D.numpy(),
        "centres": points.centres_MD.float().numpy(),
        "weight": points.weight_M.numpy(),
    }


def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Points:
    """What `to_arrays` stored."""

    def tensor(name: str) -> Tensor:
        return torch.from_numpy(np.array(arrays[name], dtype=np.float64))

    return Points(
        int(arrays["images"][0]),
        tensor("sum"),
        tensor("square"),
        tensor("centres"),
        tensor("weight"),
    )


def _resized(map_BCYX: Tensor, size: tuple[int, int]) -> Tensor:
    if map_BCYX.shape[-2:] == size:
        return map_BCYX
    return interpolate(map_BCYX, size=size, mode="bilinear", align_corners=False)


def _scale(points: Points, groups: Groups) -> Tensor:
    """weight / root mean square distance from the mean, of every group; 0 where nothing varies."""
    count = max(points.count, 1)
    variance_D = (points.square_D / count - (points.sum_D / count) ** 2).clamp_min(0)
    spread = [sqrt(float(part.sum())) for part in variance_D.split(list(groups.sizes))]
    weighed = zip(groups.weights, spread, strict=True)
    return variance_D.new_tensor([w / s if s > 0 else 0.0 for w, s in weighed])


def _wide(scale_G: Tensor, groups: Groups) -> Tensor:
    """For every entry; 1 for a group that tells nothing, so that it can be divided by."""
    sure_G = torch.where(scale_G > 0, scale_G, torch.ones_like(scale_G))
    return sure_G.repeat_interleave(torch.tensor(groups.sizes))
