"""The samples that score highest and lowest on a label, with their h: all that a supervised
direction needs of a dataset.

Every shard keeps its n highest and n lowest samples in a total order (score, then id), so merging
parts gives the same samples in the same order whatever the split, and the same bits after it.

Shape suffixes: N samples, K kept samples, D entries of h (of all its steps).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Side:
    """Some samples in rising order of (score, id)."""

    ids: tuple[str, ...]
    score_K: Tensor
    """float64, CPU."""
    h_KD: Tensor
    """float32, CPU."""


@dataclass(frozen=True, slots=True)
class Stratum:
    """The extremes of the samples on one side of the balance label."""

    name: str
    count: int
    """All labelled samples seen, kept or not."""
    low: Side
    high: Side
    """May share samples with `low` while `count` is below 2 n."""


@dataclass(frozen=True, slots=True)
class Extremes:
    """The n highest and n lowest samples of a label, of each stratum."""

    n: int
    strata: tuple[Stratum, ...]
    missing: int
    """Samples without the label or the balance label."""


def extremes(
    h_ND: Tensor,
    score_N: Tensor,
    ids: Sequence[str],
    n: int,
    *,
    balance_N: Tensor | None = None,
    threshold: float = 0.5,
) -> Extremes:
    """The extremes among the samples of one shard.

    A score of NaN is a missing label: the sample is left out and counted. With `balance_N`, scores
    of a second label, the samples above and not above `threshold` in it are kept apart, so that
    both will contribute equally and the direction does not follow the second label. Ids such as
    "shard/index" name a sample in the whole run.

    Raises:
        ValueError: lengths differ, n is below 2, an id comes twice, or h of a labelled sample is
            not finite.
    """
    if n < 2:
        raise ValueError(f"a contrast needs at least 2 samples a side, got n = {n}")
    balances = [] if balance_N is None else [len(balance_N)]
    if len({len(h_ND), len(score_N), len(ids), *balances}) > 1:
        raise ValueError(
            f"{len(h_ND)} rows of h, {len(score_N)} scores, {len(ids)} ids, {balances} balance"
            " scores: one of each is expected for every sample"
        )
    score_N = score_N.detach().double().cpu()
    labelled_N = ~score_N.isnan()
    groups = {"all": labelled_N}
    if balance_N is not None:
        balance_N = balance_N.detach().double().cpu()
        labelled_N = labelled_N & ~balance_N.isnan()
        above_N = balance_N > threshold
        groups = {"below": labelled_N & ~above_N, "above": labelled_N & above_N}
    strata = tuple(
        _stratum(name, h_ND, score_N, ids, member_N.nonzero().flatten().tolist(), n)
        for name, member_N in groups.items()
    )
    return Extremes(n, strata, int((~labelled_N).sum()))


def merged(parts: Sequence[Extremes], n: int) -> Extremes:
    """The extremes among the samples of all parts, exact and bit-equal for any split and order.

    Raises:
        ValueError: there is no part, a part kept fewer than `n`, parts differ in their strata or
            width, or a sample comes twice.
    """
    if not parts:
        raise ValueError("merging extremes needs at least one part, got none")
    if min(p.n for p in parts) < n:
        raise ValueError(f"a part kept {min(p.n for p in parts)} samples a side, {n} are wanted")
    names = [s.name for s in parts[0].strata]
    if any([s.name for s in p.strata] != names for p in parts):
        raise ValueError("some parts are balanced by a second label and some are not")
    strata = []
    for position, name in enumerate(names):
        pieces = [p.strata[position] for p in parts]
        low = _ordered([s.low for s in pieces], slice(None, n))
        high = _ordered([s.high for s in pieces], slice(-n, None))
        strata.append(Stratum(name, sum(s.count for s in pieces), low, high))
    return Extremes(n, tuple(strata), sum(p.missing for p in parts))


def contrasts(e: Extremes) -> tuple[tuple[Side, Side], ...]:
    """Low and high of every stratum, disjoint in samples and in scores.

    With fewer than 2 n samples each side takes half of them. Where both sides reach the same score
    (a label of two classes, one rarer than n), the samples of that score stay on the side that has
    no other.

    Raises:
        ValueError: all scores of a stratum are equal (one class only), or fewer than 2 samples are
            left on a side.
    """
    return tuple(_contrast(stratum) for stratum in e.strata)


def to_arrays(e: Extremes) -> dict[str, NDArray[np.generic]]:
    """For storage, numbers only (ids are JSON in bytes); `from_arrays` gives the same bits back."""
    head = [e.n, e.missing, *(s.count for s in e.strata)]
    arrays: dict[str, NDArray[np.generic]] = {"counts": np.array(head, dtype=np.int64)}
    for stratum in e.strata:
        for word, side in (("low", stratum.low), ("high", stratum.high)):
            name = f"{stratum.name}.{word}"
            arrays[f"{name}.h"] = side.h_KD.contiguous().numpy()
            arrays[f"{name}.score"] = side.score_K.numpy()
            arrays[f"{name}.ids"] = np.frombuffer(json.dumps(side.ids).encode(), dtype=np.uint8)
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Extremes:
    """What `to_arrays` stored."""
    n, missing, *counts = (int(c) for c in arrays["counts"])
    names = ("all",) if len(counts) == 1 else ("below", "above")
    strata = tuple(
        Stratum(
            name, count, _stored_side(arrays, f"{name}.low"), _stored_side(arrays, f"{name}.high")
        )
        for name, count in zip(names, counts, strict=True)
    )
    return Extremes(n, strata, missing)


def _stored_side(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Side:
    return Side(
        tuple(json.loads(arrays[f"{name}.ids"].tobytes())),
        torch.from_numpy(np.array(arrays[f"{name}.score"], dtype=np.float64)),
        torch.from_numpy(np.array(arrays[f"{name}.h"], dtype=np.float32)),
    )


def _contrast(stratum: Stratum) -> tuple[Side, Side]:
    where = "" if stratum.name == "all" else f" with the balance label {stratum.name} threshold"
    half = min(len(stratum.low.ids), stratum.count // 2)
    if half < 2:
        raise ValueError(
            "a contrast needs at least 4 labelled samples, 2 a side; there are"
            f" {stratum.count}{where}"
        )
    low = _select(stratum.low, range(half))
    high = _select(stratum.high, range(len(stratum.high.ids) - half, len(stratum.high.ids)))
    bottom, top = float(low.score_K[0]), float(high.score_K[-1])
    shared = float(low.score_K[-1])
    if bottom == top:
        raise ValueError(
            f"all {stratum.count} labelled samples{where} have the score {top:g}: one class only,"
            " so there is nothing to compare"
        )
    if float(high.score_K[0]) == shared:
        if top > shared:
            high = _select(high, (high.score_K > shared).nonzero().flatten().tolist())
        if bottom < shared:
            low = _select(low, (low.score_K < shared).nonzero().flatten().tolist())
    for word, side in (("low", low), ("high", high)):
        if len(side.ids) < 2:
            raise ValueError(
                f"only {len(side.ids)} of {stratum.count} labelled samples{where} is on the {word}"
                f" side of the score {shared:g}; at least 2 are needed"
            )
    return low, high


def _stratum(
    name: str, h_ND: Tensor, score_N: Tensor, ids: Sequence[str], members: list[int], n: int
) -> Stratum:
    scores = score_N.tolist()
    order = sorted(members, key=lambda i: (scores[i], ids[i]))
    sides = []
    for chosen in (order[:n], order[-n:]):
        h_KD = h_ND[chosen].detach().float().cpu()
        bad = [ids[i] for i, h_D in zip(chosen, h_KD, strict=True) if not h_D.isfinite().all()]
        if bad:
            raise ValueError(f"h of sample {bad[0]} is NaN or infinite")
        sides.append(Side(tuple(ids[i] for i in chosen), score_N[chosen], h_KD))
    if len({ids[i] for i in members}) < len(members):
        raise ValueError("two samples have the same id, so their order is not defined")
    return Stratum(name, len(members), sides[0], sides[1])


def _ordered(sides: Sequence[Side], kept: slice) -> Side:
    """Those `kept` of all samples in order, without copying the others."""
    entries = [
        (float(score), identity, part, row)
        for part, side in enumerate(sides)
        for row, (score, identity) in enumerate(zip(side.score_K, side.ids, strict=True))
    ]
    entries.sort(key=lambda entry: entry[:2])
    chosen = entries[kept]
    if len({entry[1] for entry in entries}) < len(entries):
        raise ValueError("a sample comes twice in the parts to merge")
    widths = {side.h_KD.shape[1] for side in sides}
    if len(widths) > 1:
        raise ValueError(f"h of one width is expected, got widths {sorted(widths)}")
    h_KD = torch.stack([sides[part].h_KD[row] for _, _, part, row in chosen]) if chosen else None
    scores = torch.tensor([entry[0] for entry in chosen], dtype=torch.float64)
    ids = tuple(entry[1] for entry in chosen)
    return Side(ids, scores, sides[0].h_KD[:0] if h_KD is None else h_KD)


def _select(side: Side, rows: Sequence[int]) -> Side:
    index = list(rows)
    return Side(tuple(side.ids[i] for i in index), side.score_K[index], side.h_KD[index])
