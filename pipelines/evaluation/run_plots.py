"""The plots of an evaluated run, in `evaluation/plots/`: each as SVG for a light and for a dark
page, and as PDF for a paper.

Shape suffix: N edits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lib import storage
from lib.commit_record import CommitDamageError, read_commit
from lib.metrics.columns import CHANGE_PREFIX
from lib.metrics.disentanglement import Row
from lib.metrics.edit_rows import EditRows
from lib.plots.lines import Points, against_strength, singular_values
from lib.plots.locality import locality
from lib.plots.matrix import disentanglement
from lib.plots.style import MAX_LINES, FileKind, SchemeName, Values
from lib.run_folder import RunFolder

PLOTS = "plots"
_FILES: Sequence[tuple[str, SchemeName, FileKind]] = (
    (".svg", "light", "svg"),
    ("-dark.svg", "dark", "svg"),
    (".pdf", "light", "pdf"),
)
_MOST_STRENGTHS = 40
_SPECTRUM_SHARDS = 32
"""So many directions files, the first by name, are read for spectra: they hold vectors, too."""
_SPECTRUM_COLUMNS = ["region", "rank", "singular_value"]
Draw = Callable[[SchemeName, FileKind], bytes]
_Found = dict[str, dict[float, list[Values]]]


@dataclass(slots=True)
class PlotPoints:
    """What the plots show of the rows; grows shard by shard, a few numbers an edit."""

    inside: dict[str, list[Values]] = field(default_factory=dict)
    outside: dict[str, list[Values]] = field(default_factory=dict)
    """Region -> in_change and out_change of all its edits."""
    changes: _Found = field(default_factory=dict)
    """Region -> strength -> in_change of the edits by one direction."""
    attributes: dict[tuple[str, str], dict[float, list[Values]]] = field(default_factory=dict)
    """(region/name, attribute) -> strength -> the attribute's change."""
    renoised: bool = False
    """Whether strengths are noise levels of SDEdit."""

    def add(self, rows: EditRows) -> None:
        """The rows of one shard more."""
        inside_N, outside_N = rows.metrics["in_change"], rows.metrics["out_change"]
        self.renoised |= bool((rows.direction == None).any())  # noqa: E711, elementwise
        for region in sorted(set(rows.region.tolist())):
            chosen_N = rows.region == region
            self.inside.setdefault(region, []).append(inside_N[chosen_N])
            self.outside.setdefault(region, []).append(outside_N[chosen_N])
            _by_strength(self.changes.setdefault(region, {}), rows, chosen_N, inside_N)
        for attribute in rows.attributes:
            moved_N = rows.metrics[CHANGE_PREFIX + attribute]
            for name in sorted(set(rows.name.tolist())):
                at = self.attributes.setdefault((name, attribute), {})
                _by_strength(at, rows, rows.name == name, moved_N)


def write_plots(folder: RunFolder, points: PlotPoints, matrix: Sequence[Row]) -> None:
    """Draw what there is to draw, and take away plots of an earlier evaluation that are not."""
    target = folder.url("evaluation", PLOTS)
    written = set()
    for name, draw in _drawings(folder, points, matrix).items():
        for suffix, scheme, kind in _FILES:
            storage.replace(storage.join(target, name + suffix), draw(scheme, kind))
            written.add(name + suffix)
    for name in storage.list_names(target):
        if name not in written:
            storage.delete(storage.join(target, name))


def spectra(folder: RunFolder) -> dict[str, Points]:
    """Region -> (rank, singular values of all images) of the directions that the run found itself;
    from the first 32 shards.
    """
    found: dict[tuple[str, int], list[Values]] = {}
    shards = sorted(folder.committed())
    for shard in shards[:_SPECTRUM_SHARDS]:
        try:
            record = read_commit(folder.commit_url(shard))
            if not record.directions:
                continue
            data = storage.read_bytes(folder.url("directions", record.directions))
            table = pq.read_table(pa.BufferReader(data), columns=_SPECTRUM_COLUMNS)
        except (CommitDamageError, OSError, pa.ArrowInvalid):
            continue  # said where the rows are read, and by `verify`
        regions = np.asarray(table["region"].to_pylist(), object)
        ranks, values = table["rank"].to_numpy(), table["singular_value"].to_numpy()
        for region in sorted(set(regions.tolist())):
            for rank in np.unique(ranks[regions == region]).tolist():
                chosen = (regions == region) & (ranks == rank)
                found.setdefault((region, rank), []).append(values[chosen])
    regions_found = sorted({region for region, _ in found})
    return {
        region: [
            (float(rank), np.concatenate(found[region, rank]))
            for rank in sorted(rank for name, rank in found if name == region)
        ]
        for region in regions_found
    }


def _drawings(folder: RunFolder, points: PlotPoints, matrix: Sequence[Row]) -> dict[str, Draw]:
    """File name -> what draws it."""
    made: dict[str, Draw] = {}
    scattered = {
        region: (np.concatenate(points.inside[region]), np.concatenate(points.outside[region]))
        for region in sorted(points.inside)
    }
    if any(bool((outside > 0).any()) for _, outside in scattered.values()):
        made["locality"] = lambda scheme, kind: locality(scattered, scheme, kind)
    found = spectra(folder)
    if any(len(at_ranks) > 1 for at_ranks in found.values()):
        made["spectra"] = lambda scheme, kind: singular_values(found, scheme, kind)
    series = {region: _points(points.changes[region]) for region in sorted(points.changes)}
    unit = "noise, sqrt(1 - alpha_bar)" if points.renoised else "mean norms of h"
    if any(series.values()):
        made["strength"] = lambda scheme, kind: against_strength(
            series, scheme, kind, measured="change inside the region", unit=unit
        )
    targets = _targets(points, matrix)
    if targets:
        made["linearity"] = lambda scheme, kind: against_strength(
            targets, scheme, kind, measured="change of the attribute", unit=unit
        )
    if matrix:
        made["disentanglement"] = lambda scheme, kind: _matrix(matrix, scheme, kind)
    return made


def _matrix(matrix: Sequence[Row], scheme: SchemeName, kind: FileKind) -> bytes:
    attributes = list(dict.fromkeys(name for row in matrix for name in row.effects))
    effect_EA = np.array(
        [
            [row.effects[a].value if a in row.effects else math.nan for a in attributes]
            for row in matrix
        ]
    )
    edits, targets = [row.edit for row in matrix], [row.target for row in matrix]
    return disentanglement(effect_EA, edits, attributes, targets, scheme, kind)


def _targets(points: PlotPoints, matrix: Sequence[Row]) -> dict[str, Points]:
    """Of the edits with the largest effects: their target attribute, by strength."""
    known = [row for row in matrix if math.isfinite(row.effects[row.target].value)]
    known.sort(key=lambda row: (-abs(row.effects[row.target].value), row.edit))
    found = {
        f"{row.edit}: {row.target}": _points(points.attributes.get((row.edit, row.target), {}))
        for row in known[:MAX_LINES]
    }
    return {name: at for name, at in sorted(found.items()) if at}


def _by_strength(
    at: dict[float, list[Values]],
    rows: EditRows,
    chosen_N: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    values_N: Values,
) -> None:
    chosen_N = chosen_N & rows.single
    for strength in np.unique(rows.strength[chosen_N]).tolist():
        here = values_N[chosen_N & (rows.strength == strength)]
        at.setdefault(round(strength, 6), []).append(here)


def _points(at: Mapping[float, Sequence[Values]]) -> Points:
    """Ascending; empty where strengths are not few."""
    if len(at) > _MOST_STRENGTHS:
        return []
    return [(strength, np.concatenate(at[strength])) for strength in sorted(at)]
