"""What the rows of a run's commits are: edits, or samples of a run that edits nothing.

All that differs between the two in the ledger stands here, so that the rest treats them alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import pyarrow as pa

from lib import schemas

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


def of_table(table: pa.Table) -> RowKind | None:
    """The kind whose schema a table has, None if it has neither's."""
    return next((kind for kind in BY_NAME.values() if table.schema.equals(kind.schema)), None)


def of_config(config: Mapping[str, Any]) -> RowKind:
    """The kind of a run whose run.json holds `config`."""
    edits_nothing = config.get("pipeline") in ("direction_library", "store_latents")
    return SAMPLES if edits_nothing else EDITS
