"""The long part of `library score`: every direction on every image, stored as it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from lib.direction import Direction
from lib.files.schemas import SCHEMA_VERSION
from lib.fingerprint import fingerprint
from lib.provenance import package_versions
from lib.records import Segmented
from pipelines.config import RunConfig
from pipelines.direction_effects import Factors, measure
from pipelines.effect_files import StoredEffects
from pipelines.effects import Effects
from pipelines.held_out import HeldOut, Subject


@dataclass(frozen=True, slots=True)
class Progress:
    """How far scoring is; a try is one direction on one image."""

    images: int
    images_done: int
    tries: int
    tries_done: int
    tries_found: int
    """Of these, left by an earlier call that did not come to its end."""


def measure_all(
    stored: StoredEffects,
    subject: Subject,
    held_out: HeldOut,
    batches: Sequence[Sequence[Direction]],
    *,
    change: float,
    factors: Factors | None,
    report: Callable[[Progress], None],
) -> None:
    """Measure every batch on every image, in this order, but for what is stored, and store it."""
    count = len(held_out.images)
    tries, done, found_tries = count * sum(map(len, batches)), 0, 0
    collected = [[Effects(direction) for direction in batch] for batch in batches]
    report(Progress(count, 0, tries, 0, 0))
    for number, image in enumerate(held_out.images):
        for batch, before in enumerate(collected):
            found = stored.find(number, batch)
            if found is None:
                found = measure(subject.editor, image, before, change=change, factors=factors)
                stored.write(number, batch, found)
            else:
                found_tries += len(before)
            for effects, measured in zip(before, found, strict=True):
                effects.add_numbers(measured)
            done += len(before)
            images_done = number + (batch == len(collected) - 1)
            report(Progress(count, images_done, tries, done, found_tries))


def measurement(
    config: RunConfig,
    subject: Subject,
    held_out: HeldOut,
    chosen: Sequence[Direction],
    change: float,
) -> str:
    """Hash of all that decides what is measured; paths are not among it."""
    exclude = {"checkpoint", "revision"}
    return fingerprint(
        {
            "schema_version": SCHEMA_VERSION,
            "versions": dict(package_versions()),
            "weights": subject.engine.model,
            "model": config.model.model_dump(mode="json", exclude=exclude),
            "grid": config.grid.model_dump(mode="json"),
            "invert": config.invert.model_dump(mode="json", exclude={"latents"}),
            "edit": config.edit.model_dump(mode="json"),
            "device": config.execution.device,
            "change": change,
            "directions": [
                [d.id, d.region, d.h_norm, list(d.window or ()), list(d.timesteps)] for d in chosen
            ],
            "images": [_image(image) for image in held_out.images],
        }
    )


def _image(image: Segmented) -> list[str]:
    sample = image.inverted.sample
    pixels = sha256(sample.image_CHW.contiguous().numpy().tobytes()).hexdigest()
    masks = (f"{region.name} {region.mask_sha256}" for region in image.regions)
    return [pixels, str(sample.seed), *masks]
