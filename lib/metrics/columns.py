"""What is measured of every edit: the columns of the manifest and their definitions.

Everywhere images are in [-1, 1], means go over pixels and colours, `region` is the edit's mask and
weighs every pixel by its coverage, and what is measured are the pixels that are stored. Imports
nothing heavy: schemas, configs and readers use it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

EDIT: Mapping[str, str] = MappingProxyType(
    {
        "in_change": "mean abs(edited - reconstruction) in the region (L1), images in [-1, 1]",
        "out_change": "the same outside the region",
        "in_l2": "mean (edited - reconstruction)^2 in the region (L2), images in [-1, 1]",
        "out_l2": "the same outside the region",
        "in_ssim": "SSIM of edited and reconstruction, its map averaged over the region",
        "out_ssim": "the same outside the region; NaN: the region is the whole image",
        "roir": "out_change / in_change; smaller is more local; NaN: the region is the whole image",
        "roir_original": "the same of changes against the original image, reconstruction included",
    }
)
"""Column -> meaning, of each edit: `lib.metrics.changes`."""

RECONSTRUCTION: Mapping[str, str] = MappingProxyType(
    {
        "psnr": "of the sample's unedited reconstruction, dB",
        "reconstruction_l1": "mean abs(reconstruction - original), images in [-1, 1]",
        "reconstruction_l2": "mean (reconstruction - original)^2, images in [-1, 1]",
        "reconstruction_ssim": "SSIM of reconstruction and original",
        "posterior_gap": "mean squared error of the noise that the model predicts in the noised"
        " original; null: not asked for",
    }
)
"""Column -> meaning, of the sample's reconstruction and so the same for all its edits."""

SCORE_PREFIX, CHANGE_PREFIX = "score_", "change_"

FIXED: tuple[str, ...] = (*EDIT, *RECONSTRUCTION)
"""Columns that every run of edits has."""


def own_columns(config: Mapping[str, Any]) -> dict[str, str]:
    """Columns beyond `FIXED` of a run with this config (as in run.json) -> meaning: those whose
    numbers come from a model of the section `evaluate`.

    A config of any shape: what is not there adds nothing.
    """
    section = config.get("evaluate")
    if not isinstance(section, Mapping):
        return {}
    scores = section.get("scores") or {}
    attributes = section.get("attributes") or {}
    columns = {
        f"{SCORE_PREFIX}{name}": f"{scores[name]['kind']} of original and edited image"
        for name in sorted(scores)
    }
    names = attributes.get("names", ()) if isinstance(attributes, Mapping) else ()
    return columns | {
        f"{CHANGE_PREFIX}{name}": f"of the classifier's {name}: edited - reconstruction"
        for name in names
    }
