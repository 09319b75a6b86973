"""Pictures of numbered regions: all of them coloured on an image, and one of them lit on many.

Shape suffixes: N images, K regions, H, W of an image or of the sheet, C colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

_SIDE, _GAP, _LABEL = 96, 4, 150
"""Pixels of a cell, between cells, and of the text left of a row."""
_PAPER, _INK, _FAINT = (250, 250, 250), (20, 20, 24), (110, 110, 118)
_UNNAMED = (150, 150, 156)
_LETTERS = 18
"""Of a name left of a row."""
_DIM = 0.22
"""What is left of the picture outside a region."""


def drawn_sheet(
    image_NHWC: Pixels, numbers_NHW: Numbers, names: Sequence[str], shares: Sequence[float]
) -> Pixels:
    """First the images, below them their regions in colours with numbers, and where there are names
    those of one name in one colour; then a row a region, in two columns, with the region lit on
    every image. uint8 (H, W, 3).
    """
    pairs = list(zip(image_NHWC, numbers_NHW, strict=True))
    count = len(pairs)
    step = _SIDE + _GAP
    column = _LABEL + count * step + 3 * _GAP
    per_column = ceil(len(names) / 2)
    wide = min(2 * _SIDE, (2 * column - _LABEL) // count - _GAP)
    colours_KC = colours(len(names))
    numbered = [str(number) for number in range(len(names))]
    above = {
        "images": [_enlarged(image_HWC, wide) for image_HWC, _ in pairs],
        "regions": [coloured(i, n, colours_KC, numbered, wide) for i, n in pairs],
    }
    if any(names):
        above["names"] = _by_name(pairs, names, wide)
    top = len(above) * (wide + _GAP) + 4 * _GAP
    sheet = Image.new("RGB", (2 * column, top + per_column * step), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    for row, (text, pictures) in enumerate(above.items()):
        y = row * (wide + _GAP) + _GAP
        draw.text((_GAP, y), text, _INK, font)
        for place, picture in enumerate(pictures):
            sheet.paste(picture, (_LABEL + place * (wide + _GAP), y))
    for number, (name, share) in enumerate(zip(names, shares, strict=True)):
        x, y = (number // per_column) * column, top + (number % per_column) * step
        draw.rectangle((x + _GAP, y + 4, x + _GAP + 14, y + 18), tuple(colours_KC[number]))
        draw.text((x + 26, y + 2), f"{number} {name}"[:_LETTERS], _INK, font)
        draw.text((x + 26, y + 24), f"{share:.1%} of all pixels", _FAINT, small)
        for place, (image_HWC, numbers_HW) in enumerate(pairs):
            lit_HWC = lit(image_HWC, numbers_HW == number)
            sheet.paste(_enlarged(lit_HWC, _SIDE), (x + _LABEL + place * step, y))
    return np.asarray(sheet)


def _by_name(
    pairs: Sequence[tuple[Pixels, Numbers]], names: Sequence[str], side: int
) -> list[Image.Image]:
    """The images under their names, one colour each; what has no name is grey."""
    distinct = ["", *sorted({name for name in names if name})]
    place_K = np.array([distinct.index(name) for name in names])
    colours_KC = colours(len(distinct))
    colours_KC[0] = _UNNAMED
    return [coloured(i, place_K[n], colours_KC, distinct, side) for i, n in pairs]


def colours(count: int) -> Pixels:
    """(K, 3): hues a golden section apart, in three brightnesses, so that neighbouring numbers
    differ.
    """
    number_K = np.arange(count)
    hue_K = number_K * 0.61803398875 % 1.0
    value_K = np.array([0.95, 0.70, 0.85])[number_K % 3]
    saturation_K = np.array([0.65, 0.80, 0.40])[number_K // 3 % 3]
    rgb_KC = mpl.colors.hsv_to_rgb(np.stack([hue_K, saturation_K, value_K], axis=1))
    return np.asarray((rgb_KC * 255).round(), dtype=np.uint8)


def coloured(
    image_HWC: Pixels, numbers_HW: Numbers, colours_KC: Pixels, texts: Sequence[str], side: int
) -> Image.Image:
    """An image under its regions' colours, borders drawn, each region's text at its middle."""
    grey_HW1 = image_HWC.mean(axis=2, keepdims=True)
    mixed_HWC = 0.75 * colours_KC[numbers_HW] + 0.25 * grey_HW1
    picture = _enlarged(mixed_HWC.astype(np.uint8), side)
    large_HW = np.asarray(
        Image.fromarray(numbers_HW.astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
    )
    border_HW = np.zeros(large_HW.shape, np.bool_)
    border_HW[1:] |= large_HW[1:] != large_HW[:-1]
    border_HW[:, 1:] |= large_HW[:, 1:] != large_HW[:, :-1]
    drawn_HWC = np.asarray(picture).copy()
    drawn_HWC[border_HW] = _INK
    picture = Image.fromarray(drawn_HWC)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(11)
    for number in np.unique(large_HW):
        y, x = middle(large_HW == number)
        if (large_HW == number).sum() >= 0.004 * large_HW.size:
            draw.text((x, y), texts[number], _INK, font, anchor="mm", stroke_width=2,
                      stroke_fill=(255, 255, 255))  # fmt: skip
    return picture


def lit(image_HWC: Pixels, inside_HW: npt.NDArray[np.bool_]) -> Pixels:
    """The image, dark and grey outside the region."""
    grey_HW1 = image_HWC.mean(axis=2, keepdims=True) * _DIM
    return np.where(inside_HW[..., None], image_HWC, grey_HW1.astype(np.uint8))


def middle(inside_HW: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Row and column of a pixel of a region that is far from its border: of what is left before
    the last erosion, the one nearest to the centre.
    """
    left_HW = np.pad(inside_HW, 1)
    while True:
        inner_HW = left_HW.copy()
        inner_HW[1:-1, 1:-1] &= (
            left_HW[:-2, 1:-1] & left_HW[2:, 1:-1] & left_HW[1:-1, :-2] & left_HW[1:-1, 2:]
        )
        if not inner_HW.any():
            break
        left_HW = inner_HW
    places_P2 = np.argwhere(left_HW) - 1
    away_P = ((places_P2 - places_P2.mean(axis=0)) ** 2).sum(axis=1)
    row, column = places_P2[int(away_P.argmin())]
    return int(row), int(column)


def _enlarged(image_HWC: Pixels, side: int) -> Image.Image:
    large = image_HWC.shape[0] > side
    how = Image.Resampling.BOX if large else Image.Resampling.NEAREST
    return Image.fromarray(image_HWC).resize((side, side), how)
