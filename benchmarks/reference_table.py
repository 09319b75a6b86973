"""What `benchmarks.reference` measures of a pair, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch

OWN = {
    "eyes": ("eye_open", "eye_col", "gaze"),
    "mouth": ("smile", "lip_col", "mouth_open"),
    "hair": ("hair_col", "hair_len"),
}
"""The factors that are drawn anew, by region."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One edit at strength 1."""

    region: str
    towards: float
    """<change, difference> / |difference|^2 of the region's own factors: 1 is the reference."""
    others: float
    """Mean |change| of all other factors."""
    difference: float
    """Mean |reference - source| of the region's own factors."""
    roir: float
    strength: float
    explained: float
    evaluations: int
    cpu_s: float

    @property
    def others_share(self) -> float:
        """Of the difference."""
        return self.others / self.difference


def table(name: str, pairs: Sequence[Pair]) -> None:
    """Print one approach by region; quartiles in brackets."""
    print(f"\n{name}")
    print(
        "region  pairs  towards [quartiles]       others [quartiles]        ROIR  strength"
        "  explained  evaluations  CPU s"
    )
    for region in [*OWN, "all"]:
        rows = [p for p in pairs if region in (p.region, "all")]
        if not rows:
            continue
        share = fmean(p.others for p in rows) / fmean(p.difference for p in rows)
        numbers = [_median([getattr(p, key) for p in rows]) for key in _MEDIANS]
        print(
            f"{region:6s} {len(rows):6d}"
            f"  {fmean(p.towards for p in rows):.2f} {_quartiles([p.towards for p in rows])}"
            f"  {share:.3f} {_quartiles([p.others_share for p in rows], 3)}"
            f" {numbers[0]:5.2f} {numbers[1]:9.2f} {numbers[2]:10.2f} {numbers[3]:12.0f}"
            f" {numbers[4]:6.1f}"
        )


_MEDIANS = ("roir", "strength", "explained", "evaluations", "cpu_s")


def _quartiles(values: Sequence[float], digits: int = 2) -> str:
    low, middle, high = torch.tensor(values).quantile(torch.tensor([0.25, 0.5, 0.75])).tolist()
    return f"[{low:.{digits}f} {middle:.{digits}f} {high:.{digits}f}]"


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values).double().quantile(0.5))
