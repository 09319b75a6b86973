"""Contact sheets: one sprite a sample, with its original, its edits from the most negative strength
to the most positive, and a heat map of what each edit changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_COLOURMAP = "inferno"
_OUTLINE = (94, 234, 212)
_MOST_BESIDE = 3
_LOSSLESS_SIDE = 96
_QUALITY = 82
_BYTES_PER_PIXEL = {True: 1.8, False: 0.18}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the cells of a sprite are; the page sets its headings and captions by the same
    columns.
    """

    side: int
    """Pixels of a cell."""
    strengths: tuple[float, ...]
    """Ascending."""
    originals: bool
    """Without them there are no heat maps either."""

    @property
    def beside(self) -> bool:
        """Heat maps stand to the right of the edits when there are few, else below them."""
        return self.originals and len(self.strengths) <= _MOST_BESIDE

    @property
    def columns(self) -> int:
        """Cells in a line."""
        return self.originals + len(self.strengths) * (2 if self.beside else 1)

    @property
    def lines(self) -> int:
        """Lines of cells."""
        return 2 if self.originals and not self.beside else 1

    @property
    def gap(self) -> int:
        """Transparent pixels between two cells."""
        return max(2, self.side // 64)

    @property
    def width(self) -> int:
        """Of the sprite in pixels."""
        return self.columns * (self.side + self.gap) - self.gap

    @property
    def height(self) -> int:
        """Of the sprite in pixels."""
        return self.lines * (self.side + self.gap) - self.gap

    @property
    def likely_bytes(self) -> float:
        """What one sprite of this layout takes, roughly."""
        return self.width * self.height * _BYTES_PER_PIXEL[self.side <= _LOSSLESS_SIDE]


def change(edited_HWC: Pixels, original_HWC: Pixels) -> npt.NDArray[np.float32]:
    """|edited - original|, mean over the colours, images in [-1, 1]: shape (H, W)."""
    difference_HWC = edited_HWC.astype(np.float32) - original_HWC.astype(np.float32)
    return np.asarray(np.abs(difference_HWC).mean(axis=2) / np.float32(127.5))


def heat_limit(changes: Sequence[npt.NDArray[np.float32]]) -> float:
    """The change at the bright end of the colours: all but 0.5 % of a sheet's pixels lie below."""
    if not changes:
        return 1.0
    top = float(np.percentile(np.concatenate([found.ravel() for found in changes]), 99.5))
    return max(0.02, float(f"{top:.1g}"))


def heat_gradient(stops: int = 9) -> str:
    """The colours of the heat maps as the stops of a CSS gradient."""
    places = np.linspace(0, 1, stops)
    colours = mpl.colormaps[_COLOURMAP](places, bytes=True)[:, :3]
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours)


def sprite(
    layout: Layout,
    original_HWC: Pixels | None,
    edited: Sequence[Pixels | None],
    mask_HW: Mask | None,
    limit: float,
) -> bytes:
    """A sample's sprite as WebP; a missing picture leaves its cell transparent.

    `edited` is in the order of `layout.strengths`; every picture has the layout's side.
    """
    sheet_HWC = np.zeros((layout.height, layout.width, 4), np.uint8)
    step = layout.side + layout.gap

    def place(line: int, column: int, pixels_HWC: Pixels) -> None:
        top, left = line * step, column * step
        cell = sheet_HWC[top : top + layout.side, left : left + layout.side]
        cell[..., :3] = pixels_HWC
        cell[..., 3] = 255

    first = int(layout.originals)
    if original_HWC is not None and layout.originals:
        place(0, 0, original_HWC)
        if not layout.beside:
            place(1, 0, outlined(original_HWC, mask_HW))
    for number, edited_HWC in enumerate(edited):
        if edited_HWC is None:
            continue
        place(0, first + number, edited_HWC)
        if original_HWC is None or not layout.originals:
            continue
        heat_HWC = outlined(coloured(change(edited_HWC, original_HWC), limit), mask_HW)
        if layout.beside:
            place(0, first + len(edited) + number, heat_HWC)
        else:
            place(1, first + number, heat_HWC)
    file = BytesIO()
    lossless = layout.side <= _LOSSLESS_SIDE
    quality = 100 if lossless else _QUALITY
    Image.fromarray(sheet_HWC).save(file, "WEBP", lossless=lossless, quality=quality, method=4)
    return file.getvalue()


def coloured(change_HW: npt.NDArray[np.float32], limit: float) -> Pixels:
    """The heat map of a change, `limit` and more at the bright end: shape (H, W, 3)."""
    colours = mpl.colormaps[_COLOURMAP](np.clip(change_HW / limit, 0, 1), bytes=True)
    return np.asarray(colours[..., :3], dtype=np.uint8)


def outlined(pixels_HWC: Pixels, mask_HW: Mask | None) -> Pixels:
    """`pixels_HWC` with the border of the mask drawn just inside it."""
    if mask_HW is None:
        return pixels_HWC
    inner_HW = mask_HW
    for _ in range(1 if mask_HW.shape[0] <= 2 * _LOSSLESS_SIDE else 2):
        inner_HW = _eroded(inner_HW)
    drawn_HWC = pixels_HWC.copy()
    drawn_HWC[mask_HW & ~inner_HW] = _OUTLINE
    return drawn_HWC


def _eroded(mask_HW: Mask) -> Mask:
    wide_HW = np.pad(mask_HW, 1, mode="edge")
    return mask_HW & wide_HW[:-2, 1:-1] & wide_HW[2:, 1:-1] & wide_HW[1:-1, :-2] & wide_HW[1:-1, 2:]
