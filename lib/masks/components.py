"""Connected parts of a mask, and a mask without the small ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


def component_numbers(mask_HW: Mask) -> npt.NDArray[np.int64]:
    """For every pixel inside the mask, the flat position of its component's first pixel; outside,
    the number of pixels. Pixels that touch at a corner are connected.

    Labels of neighbours are lowered to the smallest, then every label to its own label, until
    nothing changes (Shiloach & Vishkin 1982): few rounds even where a component winds.
    """
    height, width = mask_HW.shape
    none = mask_HW.size
    label_HW = np.where(mask_HW, np.arange(none).reshape(mask_HW.shape), none)
    while True:
        wide_HW = np.pad(label_HW, 1, constant_values=none)
        least_HW = label_HW
        for down in range(3):
            for right in range(3):
                beside_HW = wide_HW[down : down + height, right : right + width]
                least_HW = np.minimum(least_HW, beside_HW)
        # The root of the old label learns of it too, so that whole components join at once.
        parent = np.arange(none + 1)
        np.minimum.at(parent, label_HW[mask_HW], least_HW[mask_HW])
        while True:
            jumped = parent[parent]
            if np.array_equal(jumped, parent):
                break
            parent = jumped
        now_HW = np.where(mask_HW, parent[least_HW], none)
        if np.array_equal(now_HW, label_HW):
            return now_HW
        label_HW = now_HW


def without_small(mask_HW: Mask, least: float) -> Mask:
    """The mask without components of fewer than `least` pixels; where all are smaller, the largest
    stays, so that what was found is judged by its area and not lost here.
    """
    if not mask_HW.any():
        return mask_HW
    label_HW = component_numbers(mask_HW)
    labels, counts = np.unique(label_HW[mask_HW], return_counts=True)
    kept = labels[counts >= min(least, counts.max())]
    return np.isin(label_HW, kept) & mask_HW
