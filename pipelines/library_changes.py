"""What a person changes in a library: names, combinations, and directions from other files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lib.direction import WHOLE, Direction, combined, projected_out
from lib.directions.library_rows import RECORD, TABLE, read_record
from lib.directions.library_store import Library, read_library_folder, write_library
from lib.files import storage
from lib.problems import ConfigProblem

_LONGEST_NAME = 100
UNKNOWN_VALUE = 0.0
"""The singular value of a combination: how strongly the model answers to it was not measured."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """A combination: sum of weight times direction, less its part in the span of others."""

    added: tuple[tuple[str, float], ...]
    """(id or its first digits, weight)."""
    projected_out: tuple[str, ...]
    """Ids or their first digits."""
    name: str


def label_direction(root: str, given: str, name: str) -> Direction:
    """Give the direction whose id begins with `given` a name; an empty one takes it away.

    Raises:
        ConfigProblem: no direction or several have such an id, or the name cannot be one.
    """
    library = read_library_folder(root)
    wanted = library.find(given).id
    label = checked_name(name) if name else None
    directions = [replace(d, label=label) if d.id == wanted else d for d in library.directions]
    write_library(root, library.record, directions)
    return next(d for d in directions if d.id == wanted)


def compose_direction(root: str, recipe: Recipe) -> Direction:
    """Add a combination of the library's directions to it, not scored yet; returns it.

    Its parents are the directions named, its region theirs where they agree and the whole image
    where they do not; its support is the smallest of theirs, its singular value is not known (0).

    Raises:
        ConfigProblem: an id is unknown or ambiguous, the directions are of different timesteps,
            cancel out, leave nothing, or give a direction that the library has already.
    """
    library = read_library_folder(root)
    if not recipe.added:
        raise ConfigProblem("expected at least one direction to add, such as --add 3f2a=0.7")
    name = checked_name(recipe.name)
    terms = [(library.find(given), weight) for given, weight in recipe.added]
    removed = [library.find(given) for given in recipe.projected_out]
    parents = [direction for direction, _ in terms]
    try:
        made = combined(parents, [weight for _, weight in terms])
        if removed:
            made = projected_out(made, removed)
    except ValueError as error:
        raise ConfigProblem(f"{error}; nothing was composed") from error
    parents += removed
    if made.id in {d.id for d in library.directions}:
        raise ConfigProblem(
            f"the library holds this combination already, as {made.id}; `deltah library label`"
            " gives it another name"
        )
    regions = {d.region for d in parents[: len(terms)]}
    masks = {d.mask_sha256 for d in parents[: len(terms)]}
    made = replace(
        made,
        method="projected_out" if removed else "combined",
        parameters={
            "add": [[direction.id, weight] for direction, weight in terms],
            "project_out": [direction.id for direction in removed],
        },
        region=regions.pop() if len(regions) == 1 else WHOLE,
        mask_sha256=masks.pop() if len(masks) == 1 else "",
        shard=None,
        index=None,
        key=None,
        singular_value=UNKNOWN_VALUE,
        gap=None,
        residual=None,
        angle=None,
        converged=all(d.converged for d in parents),
        parents=tuple(d.id for d in parents),
        support=min(d.support for d in parents),
        spread=None,
        label=name,
    )
    write_library(root, library.record, [*library.directions, made])
    return made


def add_directions(
    root: str, directions: Sequence[Direction], details: Mapping[str, object]
) -> tuple[Library, int]:
    """Put imported directions into the library at `root`; one is begun, with `details`, where
    there is none. Returns the library and how many were new.

    Raises:
        ConfigProblem: they do not fit the library.
    """
    known: Sequence[Direction] = ()
    record = details
    if storage.exists(storage.join(root, TABLE)):
        library = read_library_folder(root)
        known, record = library.directions, library.record
    elif storage.exists(storage.join(root, RECORD)):  # of learned editors alone
        record = read_record(root)
    ids = {d.id for d in known}
    new = list({d.id: d for d in directions if d.id not in ids}.values())
    return write_library(root, record, [*known, *new]), len(new)


def checked_name(name: str) -> str:
    """`name` as it was given.

    Raises:
        ConfigProblem: it is empty, too long, or not plain text of one line.
    """
    if not name.strip() or len(name) > _LONGEST_NAME or not name.isprintable():
        raise ConfigProblem(
            f"expected a name of 1 to {_LONGEST_NAME} printable characters, got {name[:120]!r}"
        )
    return name
