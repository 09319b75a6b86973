"""Which held-out images are not held out: those in which directions of the library were found."""

from __future__ import annotations

import logging

from lib.directions.library_store import Library
from pipelines.held_out import HeldOut

_log = logging.getLogger(__name__)


def warn_of_seen(library: Library, held_out: HeldOut) -> int:
    """How many of the images are among those that the library was made from, by the hash of their
    shard's file where that is known, else by the shard's name and the position in it; logs one
    warning.
    """
    built = library.record.get("built", {})
    files = {entry["sha256"] for entry in built.get("inputs", ())}
    named = {entry["shard"] for entry in built.get("inputs", ())}
    images = {(entry["shard"], entry["index"]) for entry in built.get("images", ())}
    images |= {(d.shard, d.index) for d in library.directions if d.shard not in (None, *named)}
    samples = [image.inverted.sample for image in held_out.images]
    seen = [s for s in samples if held_out.sha256[s.shard] in files or (s.shard, s.index) in images]
    if seen:
        shards = sorted({sample.shard for sample in seen})
        _log.warning(
            "%d of the %d images are among those that the library's directions were found in"
            " (shard %s%s): their scores say little of other images; give other shards",
            len(seen),
            len(samples),
            shards[0],
            f" and {len(shards) - 1} more" if len(shards) > 1 else "",
        )
    return len(seen)
