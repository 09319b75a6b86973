"""What an edit changed, as a picture: heat maps, and the border of a region on them."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

_COLOURMAP = "inferno"
OUTLINE = (94, 234, 212)
_THIN_SIDE = 192


def change(edited_HWC: Pixels, original_HWC: Pixels) -> npt.NDArray[np.float32]:
    """|edited - original|, mean over the colours, images in [-1, 1]: shape (H, W)."""
    difference_HWC = edited_HWC.astype(np.float32) - original_HWC.astype(np.float32)
    return np.asarray(np.abs(difference_HWC).mean(axis=2) / np.float32(127.5))


def heat_gradient(stops: int = 9) -> str:
    """The colours of the heat maps as the stops of a CSS gradient."""
    places = np.linspace(0, 1, stops)
    colours = mpl.colormaps[_COLOURMAP](places, bytes=True)[:, :3]
    return ", ".join(f"rgb({red} {green} {blue})" for red, green, blue in colours)


def coloured(change_HW: npt.NDArray[np.float32], limit: float) -> Pixels:
    """The heat map of a change, `limit` and more at the bright end: shape (H, W, 3)."""
    colours = mpl.colormaps[_COLOURMAP](np.clip(change_HW / limit, 0, 1), bytes=True)
    return np.asarray(colours[..., :3], dtype=np.uint8)


def outlined(pixels_HWC: Pixels, mask_HW: Mask | None) -> Pixels:
    """`pixels_HWC` with the border of the mask drawn just inside it."""
    if mask_HW is None:
        return pixels_HWC
    drawn_HWC = pixels_HWC.copy()
    drawn_HWC[edge_of(mask_HW)] = OUTLINE
    return drawn_HWC


def edge_of(mask_HW: Mask) -> Mask:
    """The border of a mask, just inside it."""
    inner_HW = mask_HW
    for _ in range(1 if mask_HW.shape[0] <= _THIN_SIDE else 2):
        inner_HW = _eroded(inner_HW)
    return np.asarray(mask_HW & ~inner_HW)


def _eroded(mask_HW: Mask) -> Mask:
    wide_HW = np.pad(mask_HW, 1, mode="edge")
    return mask_HW & wide_HW[:-2, 1:-1] & wide_HW[2:, 1:-1] & wide_HW[1:-1, :-2] & wide_HW[1:-1, 2:]
