"""What the numeric columns of a run are called on the page, and which end is the good one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from lib.metrics.columns import CHANGE_PREFIX, EDIT, RECONSTRUCTION, SCORE_PREFIX

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

    @property
    def is_score(self) -> bool:
        """Whether a model of `evaluate.scores` gives it."""
        return self.name.startswith(SCORE_PREFIX)


_MEANINGS = {**EDIT, **RECONSTRUCTION} | {
    "roir": "change outside the region / change inside, of edited and reconstruction",
    "out_change": "mean abs(edited - reconstruction) outside the region (L1), images in [-1, 1]",
    "out_l2": "mean (edited - reconstruction)^2 outside the region (L2), images in [-1, 1]",
    "out_ssim": "SSIM of edited and reconstruction, its map averaged outside the region",
    "roir_original": "change outside the region / change inside, of edited and original",
    "mask_area": "share of the image that the region covers",
    "network_evaluations": "inversion, decoding and evaluation of the whole sample",
}
_KNOWN: tuple[tuple[str, str, Better, bool], ...] = (
    ("roir", "ROIR", "low", True),
    ("in_change", "change in", "", True),
    ("out_change", "change out", "low", True),
    ("roir_original", "ROIR, original", "low", True),
    ("in_l2", "L2 in", "", True),
    ("out_l2", "L2 out", "low", True),
    ("in_ssim", "SSIM in", "", False),
    ("out_ssim", "SSIM out", "high", False),
    ("psnr", "PSNR", "high", False),
    ("reconstruction_l1", "rec. L1", "low", True),
    ("reconstruction_l2", "rec. L2", "low", True),
    ("reconstruction_ssim", "rec. SSIM", "high", False),
    ("posterior_gap", "posterior gap", "low", False),
    ("mask_area", "mask area", "", False),
    ("network_evaluations", "evaluations", "", False),
)
"""(column, label, good end, over a log axis)."""

_NO_MEASURES = frozenset({"strength"})
_GOOD_END: Mapping[str, Better] = {"lpips": "low", "similarity": "high", "directional": "high"}
"""Of a score, by its kind."""


def measures_of(schema: pa.Schema, config: Mapping[str, Any]) -> list[Measure]:
    """The measures among the columns of a run's edits: those that every run has in the order above,
    then scores, changes of attributes, and whatever else is a number.

    `config` is the run's as in run.json, of any shape: it says what kind a score is.
    """
    numbers = [f.name for f in schema if pa.types.is_floating(f.type)]
    known = [
        Measure(name, label, _MEANINGS[name], better, log)
        for name, label, better, log in _KNOWN
        if name in numbers
    ]
    names = {name for name, *_ in _KNOWN} | _NO_MEASURES
    kinds = _kinds(config)
    return known + [_asked(name, kinds) for name in _ordered(n for n in numbers if n not in names)]


def _kinds(config: Mapping[str, Any]) -> dict[str, str]:
    """Name of a score -> its kind."""
    section = config.get("evaluate")
    scores = section.get("scores") if isinstance(section, Mapping) else None
    if not isinstance(scores, Mapping):
        return {}
    found = {
        name: score.get("kind") for name, score in scores.items() if isinstance(score, Mapping)
    }
    return {name: kind for name, kind in found.items() if isinstance(kind, str)}


def _ordered(names: Iterable[str]) -> list[str]:
    """Scores before changes of attributes before the rest, each in the order of the columns."""
    prefixes = (SCORE_PREFIX, CHANGE_PREFIX)
    return sorted(names, key=lambda name: [not name.startswith(prefix) for prefix in prefixes])


def _asked(name: str, kinds: Mapping[str, str]) -> Measure:
    if name.startswith(SCORE_PREFIX):
        score = name.removeprefix(SCORE_PREFIX)
        kind = kinds.get(score, "")
        meaning = f"{kind or 'a score'} of original and edited image"
        return Measure(name, score, meaning, _GOOD_END.get(kind, ""))
    if name.startswith(CHANGE_PREFIX):
        attribute = name.removeprefix(CHANGE_PREFIX)
        return Measure(name, f"Δ {attribute}", f"change of the classifier's {attribute}")
    return Measure(name, name.replace("_", " "), f"the column {name}")
