"""What every kind of edit does to every attribute that a classifier knows: the matrix of Haas et
al. 2024 (Table I), with intervals, and how much of it lies where it should.

Shape suffixes: N edits, A attributes, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lib.metrics.bootstrap import Floats, interval
from lib.metrics.columns import CHANGE_PREFIX
from lib.metrics.edit_rows import EditRows
from lib.metrics.sums import Figure, Moments, moments

Effects = dict[tuple[str, str], Moments]
"""(region/name of the edit, attribute) -> the changes."""


def effects(rows: EditRows) -> Effects:
    """The effect of an edit on an attribute: its change against the reconstruction, times the sign
    of the strength, so that edits with + and with - agree on a direction that is a dial. In the
    classifier's units: difference of probabilities, or of the embedded model's factors (whose range
    is -1 to 1). Edits of several directions are left out: they have several signs.
    """
    sign_N = np.where(rows.strength < 0, -1.0, 1.0)
    found: Effects = {}
    for name in sorted(set(rows.name[rows.single].tolist())):
        chosen_N = rows.single & (rows.name == name)
        for attribute in rows.attributes:
            signed_N = rows.metrics[CHANGE_PREFIX + attribute] * sign_N
            found[name, attribute] = moments(
                signed_N[chosen_N], rows.image_N[chosen_N], rows.weights_IR
            )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One kind of edit in the matrix."""

    edit: str
    target: str
    """The attribute that its name says, else the one it changes most."""
    effects: Mapping[str, Figure]
    share: Figure
    """|effect on the target| / sum over attributes of |effect|: 1 where nothing else changes."""


def matrix(sums: Effects) -> list[Row]:
    """A row for every edit, sorted; the interval of a share is that of the same bootstrap."""
    edits = sorted({edit for edit, _ in sums})
    attributes = sorted({attribute for _, attribute in sums})
    rows = []
    for edit in edits:
        own = {a: sums[edit, a] for a in attributes if (edit, a) in sums and sums[edit, a].count}
        if not own:
            continue
        names = list(own)
        means = {a: own[a].mean for a in names}
        said = edit.rpartition("/")[2]
        target = said if said in own else max(names, key=lambda a: (abs(means[a]), a))
        place = names.index(target)
        share = _share(np.array([[means[a]] for a in names]), place)[0]
        share_R = _share(np.stack([own[a].means for a in names]), place)
        count = min(own[a].count for a in names)
        figures = {a: own[a].figure() for a in names}
        rows.append(Row(edit, target, figures, Figure(float(share), *interval(share_R), count)))
    return rows


def mean_share(rows: Sequence[Row]) -> float:
    """Mean share of the rows; NaN without any."""
    known = [row.share.value for row in rows if math.isfinite(row.share.value)]
    return sum(known) / len(known) if known else math.nan


def _share(effects_AR: Floats, target: int) -> Floats:
    size_AR = np.abs(effects_AR)
    all_R = size_AR.sum(0)
    return np.asarray(size_AR[target] / np.where(all_R > 0, all_R, np.nan))
