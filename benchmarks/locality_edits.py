"""Edits of one face by all methods at equal in-region change, and what each changed: the raw rows
of `benchmarks.locality`, kept in a CSV file that a stopped run goes on from.

Shape suffixes: R regions, D entries of h, F factors; C, H, W of the image.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.embedded import Bench
from benchmarks.locality_methods import FACELESS, REGIONS, Found, as_direction
from lib.demo.faces import FACTORS
from lib.demo.regressor import Regressor, read
from lib.records import Segmented
from pipelines.strength_search import matched
from tasks.edit import Editor

OWN = {
    "eyes": ("eye_open", "eye_col", "gaze"),
    "brows": ("brow",),
    "mouth": ("smile", "lip_col", "mouth_open"),
}
"""The factors that a region is made of."""
TARGETS = (0.15, 0.30)
FIRST: Mapping[str, tuple[float, float, float]] = {
    "random": (0.9, 0.9, 0.9),
    "pca": (0.12, 0.12, 0.12),
    "jacobian": (0.075, 0.11, 0.13),
    "jive": (0.10, 0.15, 0.15),
    "null_space": (0.15, 0.20, 0.25),
    "localised": (0.11, 0.20, 0.30),
}
"""Strengths that change each region by about the first target: where searches start."""


@dataclass(frozen=True, slots=True)
class Row:
    """One edit."""

    face: int
    source: int
    """The face whose direction it is."""
    condition: str
    """own / transfer."""
    target: float
    method: str
    region: str
    roir: float
    strength: float
    in_change: float
    reached: bool
    jvp_count: int
    vjp_count: int
    changes: tuple[float, ...]
    """Of every factor, as the regressor reads them."""

    @property
    def own_change(self) -> float:
        """The largest |change| of the region's own factors."""
        return max(abs(self.changes[FACTORS.index(name)]) for name in OWN[self.region])

    @property
    def other_change(self) -> float:
        """The mean |change| of all other factors."""
        others = [
            abs(c)
            for name, c in zip(FACTORS, self.changes, strict=True)
            if name not in OWN[self.region]
        ]
        return sum(others) / len(others)


@dataclass(frozen=True, slots=True)
class Job:
    """The directions of one face or of another to be tried on a face."""

    condition: str
    source: int
    found: Mapping[str, Found]


def edited(
    bench: Bench,
    editor: Editor,
    regressor: Regressor,
    face: Segmented,
    jobs: Sequence[Job],
    node: int,
    *,
    targets: Sequence[float] = TARGETS,
    rounds: int = 5,
    tolerance: float = 0.1,
) -> list[Row]:
    """All directions of all jobs at all targets; one target after the other, all edits of a target
    in one batch.
    """
    zones = {r.name: r.mask_HW for r in face.regions}
    kinds = [(job, method, r) for job in jobs for method in job.found for r in range(len(REGIONS))]
    directions = [
        as_direction(bench, node, method, REGIONS[r], torch.from_numpy(job.found[method].V_RD[r]))
        for job, method, r in kinds
    ]
    strengths = [FIRST[method][r] for _, method, r in kinds]
    before = TARGETS[0]
    rows = []
    for target in targets:
        edits = matched(
            editor,
            face.inverted.latent,
            directions,
            [zones[d.region] for d in directions],
            target=target,
            first=[s * target / before for s in strengths],
            rounds=rounds,
            tolerance=tolerance,
        )
        strengths, before = [e.strength for e in edits], target
        images_BCHW = torch.stack([e.image_CHW for e in edits] + [edits[0].reconstruction_CHW])
        factors_BF = read(regressor, images_BCHW)
        changes_BF = factors_BF[:-1] - factors_BF[-1]
        for (job, method, r), edit, change_F in zip(kinds, edits, changes_BF, strict=True):
            found = job.found[method]
            rows.append(
                Row(
                    face.inverted.sample.index,
                    job.source,
                    job.condition,
                    target,
                    method,
                    REGIONS[r],
                    edit.roir,
                    edit.strength,
                    edit.in_change,
                    edit.reached,
                    found.jvp_count,
                    found.vjp_count,
                    tuple(change_F.tolist()),
                )
            )
    return rows


def transferred_faceless(rows: Sequence[Row]) -> list[Row]:
    """The rows of methods that do not look at a face, as what they are on another's too."""
    return [
        replace(row, condition="transfer")
        for row in rows
        if row.method in FACELESS and row.condition == "own"
    ]


_PLAIN = ("face", "source", "condition", "target", "method", "region", "roir", "strength",
          "in_change", "reached", "jvp_count", "vjp_count")  # fmt: skip


def append(path: Path, conditions: str, rows: Sequence[Row]) -> None:
    """Add rows to the file; a new one begins with the conditions, as a comment, and a header."""
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            file.write(f"# {conditions}\n")
            writer.writerow([*_PLAIN, *FACTORS])
        for row in rows:
            numbers = [getattr(row, name) for name in _PLAIN] + list(row.changes)
            writer.writerow([f"{x:.6g}" if isinstance(x, float) else x for x in numbers])


def kept(path: Path, conditions: str) -> list[Row]:
    """The rows of a file of `append` by face, none where there is no file.

    Raises:
        ValueError: the file was made under other conditions.
    """
    if not path.exists():
        return []
    with path.open(newline="") as file:
        found = file.readline()[2:].strip()
        if found != conditions:
            raise ValueError(
                f"{path} holds rows of other conditions ({found}), expected ({conditions}); name"
                " another file"
            )
        rows = [
            Row(
                int(r["face"]),
                int(r["source"]),
                r["condition"],
                float(r["target"]),
                r["method"],
                r["region"],
                float(r["roir"]),
                float(r["strength"]),
                float(r["in_change"]),
                r["reached"] == "True",
                int(r["jvp_count"]),
                int(r["vjp_count"]),
                tuple(float(r[name]) for name in FACTORS),
            )
            for r in csv.DictReader(file)
        ]
    return sorted(rows, key=lambda row: row.face)
