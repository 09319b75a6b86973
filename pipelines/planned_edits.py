"""The edits that a plan means in a run: what can never be made is refused before work starts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from lib.directions.edit_query import Candidate, Choice, Entry, Selection, enumerated
from lib.editors.editor_record import NETWORK_SPACE, RECTIFIER
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery, NoDiscovery
from pipelines.discovery_work import DiscoveryWork
from pipelines.edit_plan_config import Combination, plan_entries

MOST_EDITS = 100_000
"""Of one image, before any are sampled."""
_MOST_NAMED = 8


def planned_choices(config: RunConfig, candidates: Sequence[Candidate]) -> list[Choice]:
    """All edits of `edit.plan` for the directions that an image has at most, before any are
    sampled.

    Raises:
        ConfigProblem: an entry matches no direction that there can be, an id or label is not in
            the library, or the edits are too many.
    """
    entries = plan_entries(config.edit.plan, config.edit.strengths)
    known = isinstance(config.discover, LibraryDiscovery | NoDiscovery)
    for place, selection in _selections(config, entries):
        _refuse_never(place, selection, candidates, known=known)
    for number, entry in enumerate(entries):
        most = 1
        for term in entry.terms:
            most *= len(term.strengths) * sum(map(term.selection.matches, candidates))
        if most > MOST_EDITS:
            raise ConfigProblem(
                f"edit.plan.entries.{number}: expected at most {MOST_EDITS:,} edits of an image,"
                f" got {most:,}; select fewer directions or strengths"
            )
        if not enumerated([entry], candidates):
            raise ConfigProblem(
                f"edit.plan.entries.{number}: its combinations are all of one region, or of a"
                " direction with itself; expected different regions, or same_region: true"
            )
    return enumerated(entries, candidates)


def refuse_no_sums(choices: Iterable[Choice], work: DiscoveryWork) -> None:
    """Refuse edits that add what has no sum: a rectifier answers for the whole network as it is, so
    nothing else may change the network beside it.

    Raises:
        ConfigProblem: there is such an edit.
    """
    for choice in choices:
        facts = [work.editors[place] for place, _ in choice if place < len(work.editors)]
        networks = [fact for fact in facts if fact.space == NETWORK_SPACE]
        if len(networks) > 1 and any(fact.type == RECTIFIER for fact in networks):
            names = " and ".join(f"{f.candidate.label} ({f.type})" for f in networks)
            raise ConfigProblem(
                f"edit.plan: {names} cannot be combined: a rectifier is trained to correct the"
                " frozen network, and beside another change of the network its correction has no"
                " meaning; combine it with directions or functions of h"
            )


def _selections(config: RunConfig, entries: Sequence[Entry]) -> list[tuple[str, Selection]]:
    """Every selection by its path in the config."""
    found = []
    for number, (entry, given) in enumerate(zip(entries, config.edit.plan.entries, strict=True)):
        for part, term in enumerate(entry.terms):
            inner = f".combine.{part}" if isinstance(given, Combination) else ""
            found.append((f"edit.plan.entries.{number}{inner}", term.selection))
    return found


def _refuse_never(
    place: str, selection: Selection, candidates: Sequence[Candidate], *, known: bool
) -> None:
    """`known`: the candidates are those of a library, and not what an image is expected to have."""
    if known:
        _refuse_absent_ids(place, selection, candidates)
    if known or any(candidate.label is not None for candidate in candidates):
        _refuse_absent_labels(place, selection, candidates)
    if any(map(selection.matches, candidates)):
        return
    for key in ("ids", "labels", "min_score", "max_roir"):
        if not known and getattr(selection, key) not in ((), None):
            raise ConfigProblem(
                f"{place}.{key}: nothing of the kind is known of directions before they are found;"
                " expected it with discover.method: library"
            )
    raise ConfigProblem(
        f"{place}: no direction can match it; expected a selection of {_described(candidates)}"
    )


def _refuse_absent_ids(
    place: str, selection: Selection, candidates: Sequence[Candidate]
) -> None:  # fmt: skip
    ids = [candidate.id or "" for candidate in candidates]
    for start in selection.ids:
        found = sorted({i for i in ids if i.startswith(start)})
        if not found:
            begun = {i[: len(start)]: i for i in ids}
            (near,) = difflib.get_close_matches(start, begun, n=1, cutoff=0)
            raise ConfigProblem(
                f"{place}.ids: no direction that discover reads has an id that begins with"
                f" {start}; the nearest is {begun[near]}"
            )
        if len(found) > 1:
            raise ConfigProblem(
                f"{place}.ids: expected the first digits of one direction's id, but"
                f" {_some(found)} begin with {start}; give more digits"
            )


def _refuse_absent_labels(
    place: str, selection: Selection, candidates: Sequence[Candidate]
) -> None:  # fmt: skip
    labels = sorted({candidate.label for candidate in candidates if candidate.label is not None})
    for label in selection.labels:
        if label not in labels:
            near = difflib.get_close_matches(label, labels, n=1, cutoff=0)
            hint = f"the nearest is {near[0]!r}" if near else "none of them has a label"
            raise ConfigProblem(
                f"{place}.labels: no direction that discover reads has the label {label!r}; {hint}"
            )


def _described(candidates: Sequence[Candidate]) -> str:
    """What there is, in few words."""
    ranks: dict[str, set[int]] = {}
    for candidate in candidates:
        ranks.setdefault(candidate.region, set()).add(candidate.rank)
    methods = ", ".join(sorted({candidate.method for candidate in candidates}))
    regions = [
        f"{region} (ranks {_some([str(rank) for rank in sorted(found)])})"
        for region, found in sorted(ranks.items())
    ]
    return f"method {methods}, regions {_some(regions)}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
