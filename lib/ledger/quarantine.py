"""Shards that were given up, with the reason: the run goes on, and says so at its end."""

from __future__ import annotations

import json

from lib.files import storage
from lib.ledger.run_folder import RunFolder


def quarantine(
    folder: RunFolder, shard: str, url: str, reason: str, traceback: str | None, attempts: int
) -> bool:
    """Record that `shard` is given up; False if it was already (the first reason stays)."""
    record = {
        "v": 1,
        "shard": shard,
        "url": storage.redact(url),
        "reason": storage.redact(reason),
        "traceback": None if traceback is None else storage.redact(traceback),
        "attempts": attempts,
    }
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    try:
        storage.create(folder.quarantine_url(shard), text.encode())
    except FileExistsError:
        return False
    return True


def release(folder: RunFolder, shard: str) -> None:
    """Let the next start of the run try `shard` again; one that is not quarantined is fine."""
    storage.delete(folder.quarantine_url(shard))
