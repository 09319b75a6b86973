"""merged/regions.safetensors: the regions that a run has learned from all its images, from the
statistics of its shards. torch is imported only where there are some.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lib.discovery.statistics_files import StatisticsDamageError
from lib.files import storage
from lib.ledger.commit_record import CommitDamageError
from lib.ledger.merged_directions import Merged
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_index import LEARNED_REGIONS, ManifestFile
from lib.masks.cluster_files import (
    RegionModel,
    RegionStudy,
    decode_part,
    encode_model,
)

if TYPE_CHECKING:
    from lib.masks.clusters import Points

FILE_NAME = "regions.safetensors"
_MOST_CENTRES, _FEWER_CENTRES = 16384, 4096
"""Held at once, and what is left of them when there are more."""


def write_regions(folder: RunFolder, statistics: Sequence[str]) -> Merged:
    """Merge the statistics files, in the order given, and write the region model.

    Raises:
        FileNotFoundError: a file is gone.
        CommitDamageError: a file cannot be read, or is of another study than the first.
    """
    if not statistics:
        return Merged([], {})
    found = _merged(statistics)
    if isinstance(found, str):
        return Merged([], {LEARNED_REGIONS: found})
    data = encode_model(found)
    storage.replace(folder.url("merged", FILE_NAME), data)
    sha256 = hashlib.sha256(data).hexdigest()
    return Merged([ManifestFile(name=FILE_NAME, rows=0, bytes=len(data), sha256=sha256)], {})


def _merged(statistics: Sequence[str]) -> RegionModel | str:
    """The model, or why there is none."""
    from lib.masks.clusters import Groups, clustered, from_arrays, merged, reduced

    known: RegionStudy | None = None
    total: Points | None = None
    for url in statistics:
        where = storage.redact(url)
        try:
            study, arrays = decode_part(storage.read_bytes(url), where)
            part = from_arrays(arrays)
        except StatisticsDamageError as error:
            raise CommitDamageError(str(error)) from error
        except (KeyError, IndexError) as error:
            raise CommitDamageError(f"{where}: lacks {error}") from error
        if known is not None and study != known:
            raise CommitDamageError(f"{where}: expected the study of the other shards")
        groups = Groups(study.sizes, study.weights)
        total = part if total is None else merged([total, part])
        if len(total.weight_M) > _MOST_CENTRES:
            total = reduced(total, groups, _FEWER_CENTRES)
        known = study
    if known is None or total is None:
        return "no shard has statistics"
    try:
        clusters = clustered(total, groups, known.clusters)
    except ValueError as error:
        return str(error)
    return RegionModel(
        known,
        total.images,
        clusters.spread,
        clusters.centres_KD.numpy(),
        clusters.scale_G.numpy(),
        clusters.share_K.numpy(),
    )
