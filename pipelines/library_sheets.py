"""What a direction does to held-out images, as one picture: a row an image, the edit to either side
of the reconstruction, and what the edit to + changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from pipelines.heat_maps import Mask, Pixels, change, coloured, outlined

COLUMNS = ("−", "reconstruction", "+", "Δ of +")
MOST_ROWS = 6
HEAT_LIMIT = 4.0
"""The bright end of the heat maps, in units of the in-region change that all edits have."""

FRAME = (245, 158, 11)
"""Around edits that do not make the wanted change."""

_RECONSTRUCTION = COLUMNS.index("reconstruction")
_LOSSLESS_SIDE = 96
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One image of the sheet, (H, W, 3) each."""

    minus: Pixels
    reconstruction: Pixels
    plus: Pixels
    mask: Mask | None
    """Drawn as an outline on the heat map; None where the region is the whole image."""
    reached: bool
    """Whether the wanted change was made; if not, the edits of the row are framed."""


def gap(side: int) -> int:
    """Transparent pixels between two cells of `side` pixels."""
    return max(2, side // 64)


def sheet(rows: Sequence[SheetRow], in_change: float) -> bytes:
    """The sheet as WebP, lossless for small images; heat maps reach to HEAT_LIMIT * in_change."""
    side = rows[0].plus.shape[0]
    step = side + gap(side)
    canvas_HWC = np.zeros(
        (len(rows) * step - gap(side), len(COLUMNS) * step - gap(side), 4), np.uint8
    )
    for line, row in enumerate(rows):
        moved_HW = change(row.plus, row.reconstruction)
        heat = outlined(coloured(moved_HW, HEAT_LIMIT * in_change), row.mask)
        for column, pixels in enumerate((row.minus, row.reconstruction, row.plus, heat)):
            top, left = line * step, column * step
            cell = canvas_HWC[top : top + side, left : left + side]
            cell[..., :3] = pixels
            cell[..., 3] = 255
            if not row.reached and column != _RECONSTRUCTION:
                _frame(cell)
    file = BytesIO()
    lossless = side <= _LOSSLESS_SIDE
    Image.fromarray(canvas_HWC).save(
        file, "WEBP", lossless=lossless, quality=100 if lossless else _QUALITY, method=4
    )
    return file.getvalue()


def _frame(cell_HWC: Pixels) -> None:
    width = gap(cell_HWC.shape[0])
    for edge in (np.s_[:width], np.s_[-width:], np.s_[:, :width], np.s_[:, -width:]):
        cell_HWC[edge][..., :3] = FRAME
