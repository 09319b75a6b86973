"""`library score`: every direction of a library tried on held-out images, measured and ranked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lib.direction import WHOLE, Direction, Scores
from lib.directions.direction_reach import refuse_out_of_reach
from lib.directions.library_rows import SHEETS
from lib.directions.library_store import (
    Library,
    kind_of,
    kind_text,
    read_library_folder,
    write_library,
)
from lib.files import storage
from lib.models.checkpoint import EMBEDDED
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.direction_effects import Factors, strongest_factor, summary
from pipelines.effect_files import StoredEffects
from pipelines.effects import Effects
from pipelines.held_out import HeldOut, Subject, load_subject, read_held_out
from pipelines.library_sheets import sheet
from pipelines.measurement import Progress, measure_all, measurement
from pipelines.seen_images import warn_of_seen

_AT_ONCE = 16
"""Directions that are measured together: what bounds memory. The images stay, inverted; pictures
wait on disk for the sheets."""


@dataclass(frozen=True, slots=True)
class Scoring:
    """What to measure."""

    images: int = 16
    """Held-out images; the first that can be used."""
    change: float = 0.15
    """Wanted mean |change| inside the region, images in [-1, 1]: what makes strengths equal."""
    limit: int | None = None
    """Only the first so many directions of every region, in the order of the library."""

    def __post_init__(self) -> None:
        if self.images < 2:
            raise ConfigProblem(
                f"expected at least 2 held-out images, got {self.images}: consistency is between"
                " images"
            )
        if not 0 < self.change < 1:
            raise ConfigProblem(f"expected a change between 0 and 1, got {self.change:g}")
        if self.limit is not None and self.limit < 1:
            raise ConfigProblem(f"expected a limit of 1 or more, got {self.limit}")


@dataclass(frozen=True, slots=True)
class Scored:
    """What scoring did."""

    library: Library
    directions: int
    images: int
    skipped: int
    """Held-out images and shards that could not be used."""
    unreached: int
    """Pairs of direction and image in which no strength made the change."""
    seen: int
    """Images in which directions of the library were found."""


def score_library(
    root: str, config: RunConfig, scoring: Scoring, *, report: Callable[[Progress], None]
) -> Scored:
    """Measure the library's directions with the model, grid, inversion, regions, window and
    injection of `config` on images of its shards; writes the table, now ordered by score, and a
    sheet for each direction. Scores of an earlier call are dropped.

    What is measured is stored in the library's folder image by image until all is done, so that
    the same call goes on where one was killed; the result is the same to the byte. `report` is
    called before the first image and after every batch of directions.

    Raises:
        ConfigProblem: the library is of another model, layer or shape, the config lacks a region
            of it, or there are too few images.
        ModelProblem: the checkpoint cannot be used.
    """
    library = read_library_folder(root)
    chosen = _chosen(library.directions, scoring.limit)
    regions = {d.region for d in chosen} - {WHOLE}
    unknown = sorted(regions - set(config.segment.regions))
    if unknown:
        raise ConfigProblem(
            f"segment.regions: expected the regions of the library's directions, but {unknown} are"
            f" missing; got {sorted(config.segment.regions)}"
        )
    subject = load_subject(config)
    _check(library, subject, config)
    refuse_out_of_reach(chosen, subject.engine.grid, config.edit.window)
    held_out = read_held_out(config, subject, regions, scoring.images, least=2)
    seen = warn_of_seen(library, held_out)
    names, factors = _factors(config)
    batches = [chosen[first : first + _AT_ONCE] for first in range(0, len(chosen), _AT_ONCE)]
    stored = StoredEffects(root, measurement(config, subject, held_out, chosen, scoring.change))
    measure_all(
        stored, subject, held_out, batches, change=scoring.change, factors=factors, report=report
    )
    scored: dict[tuple[str, str], Direction] = {}
    sheets: set[str] = set()
    unreached = 0
    for number, batch in enumerate(batches):
        collected = [Effects(direction) for direction in batch]
        for image in range(len(held_out.images)):
            found = stored.find(image, number)
            if found is None:
                raise OSError(f"{storage.redact(root)}: measured effects have gone; score again")
            for effects, measured in zip(collected, found, strict=True):
                effects.add(measured)
        for effects in collected:
            direction, scores = effects.direction, _scores(effects, names)
            scored[direction.id, direction.region] = replace(direction, scores=scores)
            unreached += effects.tried - scores.images
            if effects.rows:
                name = f"{direction.id}.webp"
                data = sheet(effects.rows, scoring.change)
                storage.replace(storage.join(root, SHEETS, name), data)
                sheets.add(name)
    everything = [scored.get((d.id, d.region), replace(d, scores=None)) for d in library.directions]
    details = dict(library.record) | {"scored": _record(config, scoring, held_out, seen)}
    written = write_library(root, details, everything)
    for name in storage.list_names(storage.join(root, SHEETS)):
        if name not in sheets:
            storage.delete(storage.join(root, SHEETS, name))
    stored.clear()
    return Scored(written, len(scored), len(held_out.images), held_out.skipped, unreached, seen)


def _chosen(directions: Sequence[Direction], limit: int | None) -> list[Direction]:
    seen: Counter[str] = Counter()
    chosen = []
    for direction in directions:
        seen[direction.region] += 1
        if limit is None or seen[direction.region] <= limit:
            chosen.append(direction)
    # Not in the library's order, which scoring changes: the same directions, the same batches.
    return sorted(chosen, key=lambda direction: (direction.region, direction.id))


def _check(library: Library, subject: Subject, config: RunConfig) -> None:
    kind = kind_of(library.directions[0])
    model, h_layer, space, shape = kind
    entries = (
        subject.engine.denoiser.latent_shape if space == "x" else subject.engine.denoiser.h_shape
    )
    layer = h_layer if space == "x" else config.model.h_layer
    if (model, h_layer, shape[1:]) != (subject.engine.model, layer, entries):
        raise ConfigProblem(
            f"{storage.redact(library.root)} is of {kind_text(kind)}; the config has"
            f" {kind_text((subject.engine.model, layer, space, (shape[0], *entries)))}"
        )


def _factors(config: RunConfig) -> tuple[tuple[str, ...], Factors | None]:
    """The factor regressor, which exists for the embedded model's faces alone."""
    if config.model.checkpoint != EMBEDDED:
        return (), None
    from lib.demo.faces import FACTORS
    from lib.demo.regressor import load, read

    regressor = load()
    return FACTORS, lambda image_BCHW: read(regressor, image_BCHW)


def _scores(effects: Effects, names: Sequence[str]) -> Scores:
    factor, factor_change, other_change = strongest_factor(effects, names)
    return replace(
        summary(effects), factor=factor, factor_change=factor_change, other_change=other_change
    )


def _record(config: RunConfig, scoring: Scoring, held_out: HeldOut, seen: int) -> dict[str, Any]:
    """For library.json: what the scores are of. No paths, no moments."""
    samples = [image.inverted.sample for image in held_out.images]
    return {
        "change": scoring.change,
        "limit": scoring.limit,
        "skipped": held_out.skipped,
        "seen": seen,
        "images": [{"shard": s.shard, "index": s.index, "key": s.key} for s in samples],
        "grid": config.grid.model_dump(mode="json"),
        "invert": config.invert.model_dump(mode="json"),
        "segment": config.segment.model_dump(mode="json"),
        "window": list(config.edit.window),
        "injection": config.edit.injection,
    }
