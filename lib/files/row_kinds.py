"""What the rows of a run's commits are: edits, or samples of a run that edits nothing.

All that differs between the two in the ledger stands here, so that the rest treats them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import pyarrow as pa

from lib.files import schemas
from lib.metrics import columns

Name = Literal["edits", "samples"]


@dataclass(frozen=True, slots=True)
class RowKind:
    """The rows of every commit of a run, and of its manifest."""

    name: Name
    """Also the beginning of the names of the manifest's files."""
    schema: pa.Schema
    order: tuple[str, ...]
    """Columns by which the rows are sorted, and which no two rows share."""
    meanings: Mapping[str, str]
    """Column -> what it says."""
    has_images: bool
    """Whether samples that are ok leave images."""


EDITS = RowKind("edits", schemas.EDITS, ("index", "edit"), schemas.EDIT_MEANINGS, True)
SAMPLES = RowKind("samples", schemas.SAMPLES, ("index",), schemas.SAMPLE_MEANINGS, False)

BY_NAME: Mapping[str, RowKind] = MappingProxyType({k.name: k for k in (EDITS, SAMPLES)})


def of_schema(schema: pa.Schema) -> RowKind | None:
    """The kind whose schema this is, a run's own columns included; None if it is neither's."""
    if schema.equals(schemas.SAMPLES):
        return SAMPLES
    own = schema.names[len(schemas.EDITS) :]
    marked = all(name.startswith((columns.SCORE_PREFIX, columns.CHANGE_PREFIX)) for name in own)
    if not marked or not schema.equals(schemas.edits_with(own)):
        return None
    return _edits(dict.fromkeys(own, "")) if own else EDITS


def of_config(config: Mapping[str, Any]) -> RowKind:
    """The kind of a run whose run.json holds `config`, with the columns that it measures."""
    if config.get("pipeline") in ("direction_library", "store_latents", "region_model"):
        return SAMPLES
    return _edits(columns.own_columns(config))


def _edits(own: Mapping[str, str]) -> RowKind:
    """EDITS with a run's own columns."""
    if not own:
        return EDITS
    meanings = {**schemas.EDIT_MEANINGS, **own}
    return replace(EDITS, schema=schemas.edits_with(own), meanings=meanings)
