"""Pictures of the report as WebP: of a card its original, mask, edits and heat maps in one; and
thumbnails of many edits in one.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipelines.heat_maps import OUTLINE, Mask, Pixels, change, coloured, edge_of

_LOSSLESS_SIDE = 96
_QUALITY = 82
_THUMBNAIL_QUALITY = 78
_FILL_ALPHA = 70
_EDGE_ALPHA = 235


def card_sprite(
    original_HWC: Pixels | None,
    edited: Sequence[Pixels | None],
    mask_HW: Mask | None,
    limit: float,
    side: int,
) -> bytes:
    """Two lines of square cells without gaps: original and edits; below them the mask and the heat
    maps of the edits. A missing picture leaves its cell transparent.
    """
    canvas_HWC = np.zeros((2 * side, (1 + len(edited)) * side, 4), np.uint8)
    if original_HWC is not None:
        _place(canvas_HWC, side, 0, 0, original_HWC)
    if mask_HW is not None:
        canvas_HWC[side:, :side] = mask_overlay(mask_HW)
    for number, edited_HWC in enumerate(edited, 1):
        if edited_HWC is None:
            continue
        _place(canvas_HWC, side, 0, number, edited_HWC)
        if original_HWC is not None:
            heat_HWC = coloured(change(edited_HWC, original_HWC), limit)
            _place(canvas_HWC, side, 1, number, heat_HWC)
    lossless = side <= _LOSSLESS_SIDE
    return _webp(canvas_HWC, lossless=lossless, quality=80 if lossless else _QUALITY)


def mask_overlay(mask_HW: Mask) -> npt.NDArray[np.uint8]:
    """What is drawn over a picture to show a region: its border, and a tint inside it; RGBA."""
    overlay_HWC = np.zeros((*mask_HW.shape, 4), np.uint8)
    overlay_HWC[mask_HW, :3] = OUTLINE
    overlay_HWC[mask_HW, 3] = _FILL_ALPHA
    overlay_HWC[edge_of(mask_HW), 3] = _EDGE_ALPHA
    return overlay_HWC


def thumbnail_sprite(thumbnails: Sequence[Pixels], columns: int) -> bytes:
    """Thumbnails of one size, line by line, `columns` in a line."""
    side = thumbnails[0].shape[0]
    lines = -(-len(thumbnails) // columns)
    canvas_HWC = np.zeros((lines * side, columns * side, 3), np.uint8)
    for number, pixels_HWC in enumerate(thumbnails):
        _place(canvas_HWC, side, *divmod(number, columns), pixels_HWC)
    return _webp(canvas_HWC, lossless=False, quality=_THUMBNAIL_QUALITY)


def _place(
    canvas_HWC: npt.NDArray[np.uint8], side: int, line: int, column: int, pixels_HWC: Pixels
) -> None:
    top, left = line * side, column * side
    cell_HWC = canvas_HWC[top : top + side, left : left + side]
    cell_HWC[..., :3] = pixels_HWC
    cell_HWC[..., 3:] = 255


def _webp(canvas_HWC: npt.NDArray[np.uint8], *, lossless: bool, quality: int) -> bytes:
    file = BytesIO()
    Image.fromarray(canvas_HWC).save(file, "WEBP", lossless=lossless, quality=quality, method=3)
    return file.getvalue()
