"""Removal of what killed and beaten writers left: files that no commit names.

Only finalize calls it, after the last worker. A late worker that nobody knows of does no harm even
so: only files of shards that are committed are removed, and such a shard can never be committed
again.
"""

from __future__ import annotations

from collections.abc import Set

from lib.files import storage
from lib.ledger.run_folder import FILE_SUFFIXES, RunFolder

_HASH_DIGITS = 16


def collect(folder: RunFolder, committed: Set[str], named: Set[str]) -> tuple[str, ...]:
    """Delete leftovers and return their paths inside the folder, sorted.

    `committed`: shards; `named`: the files their commits name, such as `images/<name>`. Files of
    shards that are not committed stay: the next attempt may still name them.
    """
    removed = [
        f"{kind}/{name}"
        for kind, suffix in FILE_SUFFIXES.items()
        for name in storage.list_names(folder.url(kind))
        if f"{kind}/{name}" not in named
        and (name.startswith(storage.TEMP_PREFIX) or _shard(name, suffix) in committed)
    ]
    removed += [
        f"{kind}/{name}"
        for kind in ("commit", "quarantine", "manifest", "merged")
        for name in storage.list_names(folder.url(kind))
        if name.startswith(storage.TEMP_PREFIX)
    ]
    removed += [n for n in storage.list_names(folder.root) if n.startswith(storage.TEMP_PREFIX)]
    for path in removed:
        storage.delete(folder.url(*path.split("/")))
    return tuple(sorted(removed))


def _shard(name: str, suffix: str) -> str | None:
    """The shard of a file named `<shard>-<16 hex digits><suffix>`."""
    stem = name.removesuffix(suffix)
    shard, dash, digits = stem.rpartition("-")
    if stem == name or not dash or len(digits) != _HASH_DIGITS:
        return None
    return shard
