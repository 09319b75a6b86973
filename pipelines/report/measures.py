"""What the numeric columns of a run are called on the page, and which end is the good one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

Better = Literal["low", "high", ""]


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of numbers."""

    name: str
    """Of the column."""
    label: str
    meaning: str
    better: Better = ""
    log: bool = False
    """Whether its distribution is shown over a log axis."""


_CHANGE = "between edited and reconstruction, images in [−1, 1]"
_KNOWN = (
    Measure("roir", "ROIR", "change outside / change inside the region, against the"
            " reconstruction", "low", True),
    Measure("in_change", "change in", f"mean absolute difference in the region {_CHANGE}", "",
            True),
    Measure("out_change", "change out", f"mean absolute difference outside the region {_CHANGE}",
            "low", True),
    Measure("roir_original", "ROIR, original", "change outside / change inside the region, against"
            " the original image", "low", True),
    Measure("in_l2", "L2 in", f"root mean square in the region {_CHANGE}", "", True),
    Measure("out_l2", "L2 out", f"root mean square outside the region {_CHANGE}", "low", True),
    Measure("in_ssim", "SSIM in", "structural similarity of edited and reconstruction in the"
            " region"),
    Measure("out_ssim", "SSIM out", "structural similarity of edited and reconstruction outside"
            " the region", "high"),
    Measure("psnr", "PSNR", "of the unedited reconstruction against the original, dB", "high"),
    Measure("reconstruction_l1", "rec. L1", "mean absolute difference between reconstruction and"
            " original", "low", True),
    Measure("reconstruction_l2", "rec. L2", "root mean square between reconstruction and original",
            "low", True),
    Measure("reconstruction_ssim", "rec. SSIM", "structural similarity of reconstruction and"
            " original", "high"),
    Measure("posterior_gap", "posterior gap", "how far the inverted latents are from those of the"
            " forward process", "low"),
    Measure("mask_area", "mask area", "share of the image that the region covers"),
    Measure("network_evaluations", "evaluations", "passes of the network for the whole sample"),
)  # fmt: skip
_NO_MEASURES = frozenset({"strength"})
_SCORE, _CHANGE_OF = "score_", "change_"


def measures_of(schema: pa.Schema) -> list[Measure]:
    """The measures among the columns of a run's edits: those that every run has in the order above,
    then what the config asked for, then whatever else is a number.
    """
    numbers = [f.name for f in schema if pa.types.is_floating(f.type)]
    known = {measure.name: measure for measure in _KNOWN}
    found = [measure for measure in _KNOWN if measure.name in numbers]
    others = [name for name in numbers if name not in known and name not in _NO_MEASURES]
    return found + [_asked(name) for name in _ordered(others)]


def _ordered(names: Iterable[str]) -> list[str]:
    """Scores before changes of attributes before the rest, each in the order of the columns."""
    return sorted(
        names, key=lambda n: 0 if n.startswith(_SCORE) else 1 if n.startswith(_CHANGE_OF) else 2
    )


def _asked(name: str) -> Measure:
    if name.startswith(_SCORE):
        score = name.removeprefix(_SCORE)
        return Measure(name, score, f"the score {score}, see evaluate.scores in the config")
    if name.startswith(_CHANGE_OF):
        attribute = name.removeprefix(_CHANGE_OF)
        return Measure(name, f"Δ {attribute}", f"change of the attribute {attribute}")
    return Measure(name, name.replace("_", " "), f"the column {name}")
