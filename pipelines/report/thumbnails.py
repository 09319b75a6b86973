"""Small pictures for the table of edits, many to a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lib.ledger.run_folder import RunFolder
from pipelines.heat_maps import Pixels
from pipelines.report.pictures import Sides, load_pictures
from pipelines.report.samples import Samples, by_tar
from pipelines.report.sprites import thumbnail_sprite

SIDE = 64
COLUMNS = 10
PER_FILE = COLUMNS * COLUMNS
MAX_THUMBNAILS = 1200


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """The n-th thumbnail is in file n // PER_FILE."""

    rows: Mapping[int, int]
    """Row of the report's table -> number of its thumbnail."""
    files: Mapping[str, bytes]


def make_thumbnails(
    folder: RunFolder, samples: Samples, first: Iterable[int], sides: Sides
) -> Thumbnails:
    """Thumbnails of the edits of the samples `first` and of evenly spaced others, until there are
    enough; what cannot be read has none.
    """
    numbers = dict.fromkeys(first)
    numbers |= dict.fromkeys(samples.even(int(MAX_THUMBNAILS / max(1.0, samples.rows_each()))))
    chosen = []
    left = MAX_THUMBNAILS
    for sample in map(samples.__getitem__, numbers):
        if left <= 0:
            break
        chosen.append((sample.first_row, sample))
        left -= len(sample.rows)
    side = min(SIDE, sides.shown)
    rows: dict[int, int] = {}
    files: dict[str, bytes] = {}
    waiting: list[Pixels] = []

    def write() -> None:
        files[f"thumbnails/{len(files):03d}.webp"] = thumbnail_sprite(waiting, COLUMNS)
        waiting.clear()

    for tar, members in by_tar(sample for _, sample in sorted(chosen, key=lambda pair: pair[0])):
        wanted = [(sample, range(len(sample.rows))) for sample in members]
        pictures = load_pictures(folder, tar, wanted, side, pairs=False)
        for sample in members:
            for place, row in enumerate(sample.rows):
                pixels_HWC = pictures.edited.get((sample.shard, row["member"]))
                if pixels_HWC is None or len(rows) >= MAX_THUMBNAILS:
                    continue
                rows[sample.first_row + place] = len(rows)
                waiting.append(pixels_HWC)
                if len(waiting) == PER_FILE:
                    write()
    if waiting:
        write()
    return Thumbnails(rows, files)
