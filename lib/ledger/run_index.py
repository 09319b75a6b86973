"""index.json: totals of a finalized run and an entry per shard, for readers without Parquet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, TypedDict

from lib.files import storage
from lib.ledger.run_folder import RunFolder
from lib.ledger.snapshot import Snapshot

INDEX_VERSION = 4
"""Raised whenever index.json changes its fields or their meaning."""


class ShardEntry(TypedDict):
    """One committed shard. A file name of "" means that there is no such file."""

    shard: str
    samples: int
    errors: int
    edits: int
    found: int
    """Directions stored with the shard."""
    image: str
    image_bytes: int
    image_sha256: str
    directions: str
    directions_bytes: int
    directions_sha256: str
    statistics: str
    statistics_bytes: int
    statistics_sha256: str
    latents: str
    latents_bytes: int
    latents_sha256: str


class ManifestFile(TypedDict):
    """One Parquet file under manifest/ or merged/."""

    name: str
    rows: int
    bytes: int
    sha256: str


class Totals(TypedDict):
    """Sums over the committed shards."""

    shards: int
    quarantined: int
    samples: int
    errors: int
    edits: int
    marked: int
    """Edits that break a rule of evaluate.filters and are there all the same."""
    dropped: int
    """Edits that are not there, because they break one."""
    directions: int
    """Found in single images, and merged from all of them."""
    image_bytes: int
    directions_bytes: int
    statistics_bytes: int
    latents_bytes: int


class RunIndex(TypedDict):
    """The whole of index.json."""

    v: int
    fingerprint: str
    rows: Literal["edits", "samples"]
    """What the rows of commits and manifest are."""
    totals: Totals
    regions: Mapping[str, int]
    """Region -> edits."""
    marked: Mapping[str, int]
    """Rule of evaluate.filters -> edits marked because it is the first that they break."""
    dropped: Mapping[str, int]
    """Rule -> edits dropped, likewise."""
    error_kinds: Mapping[str, int]
    """Kind -> rows under errors/, unreadable stretches of shards included."""
    manifest: list[ManifestFile]
    merged: list[ManifestFile]
    """What was learned from all images: directions.parquet, if there is any."""
    left_out: Mapping[str, str]
    """Label (or "pca") -> why no direction could be made of it."""
    quarantined: Mapping[str, str]
    """Shard -> reason."""
    shards: list[ShardEntry]


LEARNED_REGIONS = "learned regions"
"""The key of `left_out` for a run that learns regions; no label has a space."""


def not_learned(index: RunIndex) -> list[str]:
    """A sentence for everything that could not be learned from all images."""
    return [
        f"no {'regions' if what == LEARNED_REGIONS else 'direction'}: {why}"
        for what, why in index["left_out"].items()
    ]


def covers(index: RunIndex, snapshot: Snapshot) -> bool:
    """Whether it was made of just these commits, and no quarantine record has come or gone."""
    shards = {entry["shard"] for entry in index["shards"]}
    return shards == snapshot.committed and index["quarantined"].keys() == snapshot.given_up


def read_index(folder: RunFolder) -> RunIndex | None:
    """index.json, or None before the first finalize.

    Raises:
        ValueError: it is of another version.

    """
    try:
        index: RunIndex = json.loads(storage.read_bytes(folder.index_url))
    except FileNotFoundError:
        return None
    if index.get("v") != INDEX_VERSION:
        raise ValueError(
            f"{storage.redact(folder.index_url)}: expected version {INDEX_VERSION}, got"
            f" {index.get('v')}; run `deltah finalize` again"
        )
    return index


def write_index(folder: RunFolder, index: RunIndex) -> None:
    """Replace index.json; the bytes depend on `index` alone."""
    text = json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    storage.replace(folder.index_url, text.encode())
