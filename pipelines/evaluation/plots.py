"""The plots of an evaluation: SVG and PDF on light ground, SVG on dark ground below `dark/`.

Shape suffix: N edits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from lib.files import storage
from lib.ledger.commit_record import CommitRecord
from lib.ledger.run_folder import RunFolder
from lib.metrics.columns import CHANGE_PREFIX
from lib.metrics.disentanglement import Row
from lib.metrics.edit_rows import EditRows
from lib.plots.lines import UNIT, Points, against_strength, singular_values
from lib.plots.locality import locality
from lib.plots.matrix import disentanglement
from lib.plots.style import MAX_LINES, FileKind, SchemeName
from pipelines.evaluation.outputs import PLOTS

_MOST_SHARDS = 2000
"""From as many shards on, some images of each are left out of the plots."""
_SPECTRA_SHARDS = 32
"""Directions files hold vectors, and are read whole."""

Values = npt.NDArray[np.float32]
Draw = Callable[[SchemeName, FileKind], bytes]
_NAMES = ("attributes", "disentanglement", "linearity", "locality", "spectra")
_FILES: tuple[tuple[str, SchemeName, FileKind], ...] = (
    ("{}.svg", "light", "svg"),
    ("{}.pdf", "light", "pdf"),
    ("dark/{}.svg", "dark", "svg"),
)


@dataclass(slots=True)
class PlotValues:
    """What is drawn of single edits, in parts as shards come."""

    share: float
    """Of the images, the same ones every time: chosen by hash."""
    learned: Collection[str] = ()
    """Ids of learned editors, which are drawn apart from the directions of their region."""
    changes: dict[tuple[str, float], list[tuple[Values, Values]]] = field(default_factory=dict)
    """(region, or region/name of a learned editor; strength) -> (in_change, out_change)."""
    attributes: dict[tuple[str, str], dict[float, list[Values]]] = field(default_factory=dict)
    """(region/name, attribute) -> strength -> the attribute's changes."""

    def add(self, rows: EditRows) -> None:
        """One shard more; edits of several directions are left out: they have several strengths."""
        drawn_I = rows.seeds_I.astype(np.float64) / 2.0**64 < self.share
        chosen_N = rows.single & drawn_I[rows.image_N]
        if "in_change" not in rows.metrics:
            return
        both = rows.metrics["in_change"], rows.metrics["out_change"]
        learned_N = np.array([each in self.learned for each in rows.direction], bool)
        line_N = np.where(learned_N, rows.name, rows.region)
        for region in sorted(set(line_N[chosen_N].tolist())):
            of_region = chosen_N & (line_N == region)
            for strength in np.unique(rows.strength[of_region]).tolist():
                place = of_region & (rows.strength == strength)
                part = (both[0][place], both[1][place])
                self.changes.setdefault((region, strength), []).append(part)
        if not rows.attributes:
            return
        for name in sorted(set(rows.name[chosen_N].tolist())):
            of_name = chosen_N & (rows.name == name)
            for strength in np.unique(rows.strength[of_name]).tolist():
                place = of_name & (rows.strength == strength)
                for attribute in rows.attributes:
                    at = self.attributes.setdefault((name, attribute), {})
                    moved_N = rows.metrics[CHANGE_PREFIX + attribute][place]
                    at.setdefault(strength, []).append(moved_N)

    def by_region(self) -> dict[str, tuple[Values, Values]]:
        """Region or learned editor -> (in_change, out_change) of all its edits."""
        regions = sorted({region for region, _ in self.changes})
        return {
            region: (
                np.concatenate([part[0] for part in self._of(region)]),
                np.concatenate([part[1] for part in self._of(region)]),
            )
            for region in regions
        }

    def by_strength(self) -> dict[str, Points]:
        """Region or learned editor -> (strength, in_change of its edits), ascending."""
        found: dict[str, list[tuple[float, Values]]] = {}
        for region, strength in sorted(self.changes):
            parts = [part[0] for part in self.changes[region, strength]]
            found.setdefault(region, []).append((round(strength, 7), np.concatenate(parts)))
        return dict(found)

    def of_targets(self, matrix: Sequence[Row]) -> dict[str, Points]:
        """Of the edits with the largest effects: (strength, changes of the attribute they are
        for).
        """
        known = [row for row in matrix if (row.edit, row.target) in self.attributes]
        known.sort(key=lambda row: (-abs(row.effects[row.target].value), row.edit))
        found: dict[str, Points] = {}
        for row in sorted(known[:MAX_LINES], key=lambda row: row.edit):
            at = self.attributes[row.edit, row.target]
            points = [(round(s, 7), np.concatenate(at[s])) for s in sorted(at)]
            found[f"{row.edit}: {row.target}"] = points
        return found

    def _of(self, region: str) -> list[tuple[Values, Values]]:
        return [p for key in sorted(self.changes) if key[0] == region for p in self.changes[key]]


def share_of(shards: int) -> float:
    """How many of the images to draw of a run with so many shards."""
    return min(1.0, _MOST_SHARDS / max(1, shards))


def read_spectra(folder: RunFolder, records: Sequence[CommitRecord]) -> dict[str, Points]:
    """Region -> (rank from 0, singular values of all images), of evenly spaced shards; empty where
    directions come from elsewhere.
    """
    holding = [record for record in records if record.directions and record.own_directions]
    every = max(1, -(-len(holding) // _SPECTRA_SHARDS))
    found: dict[str, dict[int, list[float]]] = {}
    for record in holding[::every]:
        data = storage.read_bytes(folder.url("directions", record.directions))
        columns = ["region", "rank", "singular_value"]
        for row in pq.read_table(pa.BufferReader(data), columns=columns).to_pylist():
            ranks = found.setdefault(row["region"], {})
            ranks.setdefault(row["rank"], []).append(row["singular_value"])
    return {
        region: [(float(rank), np.array(ranks[rank], np.float32)) for rank in sorted(ranks)]
        for region, ranks in sorted(found.items())
        if len(ranks) > 1
    }


def write_plots(
    folder: str,
    values: PlotValues,
    spectra: Mapping[str, Points],
    matrix: Sequence[Row],
    *,
    unit: str = UNIT,
) -> None:
    """Everything that there are numbers for; plots of an earlier call that are not are removed.
    `unit` is that of the strengths.
    """
    drawings: dict[str, Draw] = {}
    changes, strengths = values.by_region(), values.by_strength()
    if any(bool((outside > 0).any()) for _, outside in changes.values()):
        drawings["locality"] = lambda scheme, kind: locality(changes, scheme, kind)
    if any(len(points) > 1 for points in strengths.values()):
        drawings["linearity"] = lambda scheme, kind: against_strength(
            strengths, scheme, kind, unit=unit, measured="change inside the region"
        )
    targets = values.of_targets(matrix)
    if any(len(points) > 1 for points in targets.values()):
        drawings["attributes"] = lambda scheme, kind: against_strength(
            targets, scheme, kind, unit=unit, measured="change of the attribute"
        )
    if spectra:
        drawings["spectra"] = lambda scheme, kind: singular_values(spectra, scheme, kind)
    if matrix:
        drawings["disentanglement"] = _matrix_drawing(matrix)
    for name in _NAMES:
        for path, scheme, kind in _FILES:
            url = storage.join(folder, PLOTS, path.format(name))
            if name in drawings:
                storage.replace(url, drawings[name](scheme, kind))
            else:
                storage.delete(url)


def _matrix_drawing(matrix: Sequence[Row]) -> Draw:
    attributes = sorted({name for row in matrix for name in row.effects})
    effects = np.array(
        [
            [row.effects[a].value if a in row.effects else np.nan for a in attributes]
            for row in matrix
        ]
    )
    edits, targets = [row.edit for row in matrix], [row.target for row in matrix]
    return lambda scheme, kind: disentanglement(effects, edits, attributes, targets, scheme, kind)
