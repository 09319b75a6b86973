"""Whether a direction is a dial: more strength, more change; the opposite strength, the opposite
change; and as much in other images as in the one in which it was found.

Shape suffixes: N edits, S strengths of one direction in one image, A attributes, R replicates.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from lib.metrics.bootstrap import Floats, interval
from lib.metrics.columns import CHANGE_PREFIX
from lib.metrics.edit_rows import EditRows
from lib.metrics.sums import Figure, Moments, moments

Dials = dict[tuple[str, str], Moments]
"""(region/name of the edit, what) -> values, one an image and direction."""
LINEARITY, SYMMETRY, BALANCE = "linearity", "symmetry", "balance"
OF_ATTRIBUTE = "linearity of "
"""An attribute's name follows."""

Sources = Mapping[str, tuple[str, int]]
"""Direction id -> (shard, index) of the image in which it was found."""
_HOME, _AWAY = "change at home", "change away"


def dials(rows: EditRows) -> Dials:
    """Of every image and single direction that was applied at several strengths:

    - linearity: correlation of in_change with |strength|; the reconstruction counts as a change of
      0 at strength 0, and there must be two other sizes of strength, or it would say nothing
    - linearity of an attribute: the same of its signed change and the strength
    - symmetry: minus the cosine between the changes of all attributes at -s and at s: 1 where the
      two are opposite, -1 where the sign makes no difference
    - balance: in_change of the weaker of the two / of the stronger: 1 where both reach as far
    """
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    attributes = rows.attributes
    columns = [rows.metrics[CHANGE_PREFIX + attribute] for attribute in attributes]
    changes_NA = np.stack(columns, 1) if columns else None
    for place in _dials_of(rows):
        name, image = rows.name[place[0]], int(rows.image_N[place[0]])
        strength_S, change_S = rows.strength[place], rows.metrics["in_change"][place]
        values = {LINEARITY: _through_zero(np.abs(strength_S), change_S)}
        values[BALANCE] = _mean(
            min(change_S[m], change_S[p]) / max(change_S[m], change_S[p])
            for m, p in _pairs(strength_S)
            if max(change_S[m], change_S[p]) > 0
        )
        if changes_NA is not None:
            changes_SA = changes_NA[place].astype(np.float64)
            values[SYMMETRY] = _mean(
                -_cosine(changes_SA[m], changes_SA[p]) for m, p in _pairs(strength_S)
            )
            for column, attribute in enumerate(attributes):
                values[OF_ATTRIBUTE + attribute] = _through_zero(strength_S, changes_SA[:, column])
        for what, value in values.items():
            if math.isfinite(value):
                found.setdefault((name, what), []).append((image, value))
    return {key: _moments(rows, pairs) for key, pairs in found.items()}


def journeys(rows: EditRows, sources: Sources) -> Dials:
    """in_change of the edits whose direction was found in their own image, and of those whose
    direction was found in another image of the run; nothing where the origin is unknown.
    """
    found: Dials = {}
    home_N, away_N = np.zeros(len(rows.name), bool), np.zeros(len(rows.name), bool)
    for row, direction in enumerate(rows.direction):
        if rows.single[row] and direction in sources:
            here = (rows.shard, int(rows.index_I[rows.image_N[row]]))
            home_N[row] = sources[direction] == here
            away_N[row] = not home_N[row]
    for what, chosen_N in ((_HOME, home_N), (_AWAY, away_N)):
        for name in sorted(set(rows.name[chosen_N].tolist())):
            place = chosen_N & (rows.name == name)
            found[name, what] = moments(
                rows.metrics["in_change"][place], rows.image_N[place], rows.weights_IR
            )
    return found


def transfer(sums: Dials) -> dict[str, Figure]:
    """Edit -> mean in_change in other images / in the image in which its direction was found, where
    both are known.
    """
    found = {}
    for name, what in sums:
        if what != _HOME or (name, _AWAY) not in sums:
            continue
        home, away = sums[name, _HOME], sums[name, _AWAY]
        if home.mean > 0:
            ratio_R = away.means / home.means
            found[name] = Figure(away.mean / home.mean, *interval(ratio_R), away.count)
    return found


def _dials_of(rows: EditRows) -> Iterator[npt.NDArray[np.intp]]:
    """The rows of each image and direction, by strength."""
    groups: dict[tuple[int, str], list[int]] = {}
    for row in np.flatnonzero(rows.single).tolist():
        if rows.direction[row] is not None:
            groups.setdefault((int(rows.image_N[row]), rows.direction[row]), []).append(row)
    for places in groups.values():
        found = np.array(places, np.intp)
        yield found[np.argsort(rows.strength[found], kind="stable")]


def _through_zero(strength_S: npt.ArrayLike, change_S: npt.ArrayLike) -> float:
    """Correlation with the point (0, 0) among them; NaN unless two strengths differ and are not 0,
    or where nothing changes.
    """
    x = np.append(0.0, np.asarray(strength_S, np.float64))
    y = np.append(0.0, np.asarray(change_S, np.float64))
    if len(set(x.tolist()) - {0.0}) < 2 or not np.isfinite(y).all() or np.ptp(y) == 0:
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])


def _pairs(strength_S: Floats) -> list[tuple[int, int]]:
    """Positions of -s and s."""
    places = {float(strength): place for place, strength in enumerate(strength_S)}
    return [(place, places[-s]) for s, place in places.items() if s < 0 and -s in places]


def _cosine(a_A: Floats, b_A: Floats) -> float:
    size = float(np.linalg.norm(a_A) * np.linalg.norm(b_A))
    return float(a_A @ b_A) / size if size > 0 else math.nan


def _mean(values: Iterator[float]) -> float:
    known = [float(value) for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _moments(rows: EditRows, pairs: list[tuple[int, float]]) -> Moments:
    image = np.array([image for image, _ in pairs], np.intp)
    return moments([value for _, value in pairs], image, rows.weights_IR)
