"""Whether a direction is a dial: more strength, more change; the opposite strength, the opposite
change; and as much in other images as in the one in which it was found.

Shape suffixes: N edits, G pairs of an image and a direction, S strengths, P strengths with 0, A (K)
attributes, R replicates.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from lib.metrics.bootstrap import Floats, interval
from lib.metrics.columns import CHANGE_PREFIX
from lib.metrics.edit_rows import EditRows
from lib.metrics.sums import Figure, Moments, add_into, moments

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
    found: Dials = {}
    attributes = rows.attributes
    columns = [rows.metrics[CHANGE_PREFIX + attribute] for attribute in attributes]
    changes_NA = np.stack(columns, 1).astype(np.float64) if columns else None
    for strength_S, place_GS in _dials_of(rows):
        change_GS = rows.metrics["in_change"][place_GS].astype(np.float64)
        pairs = _pairs(strength_S)
        values = {
            LINEARITY: _through_zero(np.abs(strength_S), change_GS[..., None])[:, 0],
            BALANCE: _mean([_balance(change_GS[:, m], change_GS[:, p]) for m, p in pairs]),
        }
        if changes_NA is not None:
            changes_GSA = changes_NA[place_GS]
            opposite = [-_cosine(changes_GSA[:, m], changes_GSA[:, p]) for m, p in pairs]
            values[SYMMETRY] = _mean(opposite)
            linear_GA = _through_zero(strength_S, changes_GSA)
            values |= {OF_ATTRIBUTE + a: linear_GA[:, k] for k, a in enumerate(attributes)}
        first_G = place_GS[:, 0]
        name_G, image_G = rows.name[first_G], rows.image_N[first_G]
        for name in sorted(set(name_G.tolist())):
            own_G = name_G == name
            for what, value_G in values.items():
                if value_G.size:
                    sums = moments(value_G[own_G], image_G[own_G], rows.weights_IR)
                    add_into(found, {(name, what): sums})
    return {key: sums for key, sums in found.items() if sums.count}


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


def _dials_of(rows: EditRows) -> Iterator[tuple[Floats, npt.NDArray[np.intp]]]:
    """(strengths, ascending; their rows of every image and direction that has just these)."""
    groups: dict[tuple[int, str], list[int]] = {}
    order_N = np.argsort(rows.strength, kind="stable")
    for row in order_N[rows.single[order_N]].tolist():
        if rows.direction[row] is not None:
            groups.setdefault((int(rows.image_N[row]), rows.direction[row]), []).append(row)
    alike: dict[tuple[float, ...], list[list[int]]] = {}
    for places in groups.values():
        alike.setdefault(tuple(rows.strength[places].tolist()), []).append(places)
    for strengths in sorted(alike):
        yield np.array(strengths), np.array(alike[strengths], np.intp)


def _through_zero(strength_S: Floats, change_GSK: Floats) -> Floats:
    """(G, K): correlation over S with the point (0, 0) among them; NaN unless two strengths differ
    and are not 0, and where nothing changes.
    """
    groups, _, columns = change_GSK.shape
    if len(set(strength_S.tolist()) - {0.0}) < 2:
        return np.full((groups, columns), np.nan)
    x_P = np.append(0.0, strength_S)
    y_GPK = np.concatenate([np.zeros((groups, 1, columns)), change_GSK], axis=1)
    x_P, y_GPK = x_P - x_P.mean(), y_GPK - y_GPK.mean(1, keepdims=True)
    together_GK = np.einsum("p,gpk->gk", x_P, y_GPK)
    size_GK = np.sqrt(np.square(x_P).sum() * np.square(y_GPK).sum(1))
    return np.asarray(together_GK / np.where(size_GK > 0, size_GK, np.nan))


def _pairs(strength_S: Floats) -> list[tuple[int, int]]:
    """Positions of -s and s."""
    places = {float(strength): place for place, strength in enumerate(strength_S)}
    return [(place, places[-s]) for s, place in places.items() if s < 0 and -s in places]


def _balance(minus_G: Floats, plus_G: Floats) -> Floats:
    larger_G = np.maximum(minus_G, plus_G)
    return np.asarray(np.minimum(minus_G, plus_G) / np.where(larger_G > 0, larger_G, np.nan))


def _cosine(a_GA: Floats, b_GA: Floats) -> Floats:
    size_G = np.linalg.norm(a_GA, axis=1) * np.linalg.norm(b_GA, axis=1)
    return np.asarray((a_GA * b_GA).sum(1) / np.where(size_G > 0, size_G, np.nan))


def _mean(values: list[Floats]) -> Floats:
    """(G,): over the pairs, of those that are numbers; empty without pairs."""
    if not values:
        return np.empty(0)
    found = np.stack(values)
    known = np.isfinite(found)
    count_G = known.sum(0)
    return np.asarray(np.where(known, found, 0.0).sum(0) / np.where(count_G, count_G, np.nan))
