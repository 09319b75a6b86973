"""Shards that were given up, with the reason: the run goes on, and says so at its end."""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from lib.files import storage
from lib.ledger.run_folder import RunFolder

MOST_REASONS = 100
UNREADABLE = "its record cannot be read"
_READERS = 8


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


def reasons(folder: RunFolder, shards: Iterable[str], most: int = MOST_REASONS) -> dict[str, str]:
    """Shard -> why it was given up, of the first `most` in the order of names; UNREADABLE where the
    record is damaged. A shard that was released meanwhile is left out.
    """

    def read(shard: str) -> tuple[str, str | None]:
        try:
            return shard, str(
                json.loads(storage.read_bytes(folder.quarantine_url(shard)))["reason"]
            )
        except FileNotFoundError:
            return shard, None
        except (ValueError, KeyError, TypeError):
            return shard, UNREADABLE

    with ThreadPoolExecutor(_READERS) as pool:
        found = list(pool.map(read, sorted(shards)[:most]))
    return {shard: reason for shard, reason in found if reason is not None}
