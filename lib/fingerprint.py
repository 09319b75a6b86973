"""What names a run's content: a hash of everything that changes a pixel or a row, and the seeds
derived from it.

Two runs with the same fingerprint make the same bytes; a folder made by another fingerprint is
refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def canonical_json(value: Any) -> str:
    """The one JSON text of `value`: sorted keys, no spaces, tuples as arrays, shortest round-trip
    floats.

    Raises ValueError for NaN or infinity and TypeError for what JSON cannot hold, mapping keys that
    are not strings included (JSON would merge the keys 1 and "1").
    """
    _check_keys(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def fingerprint(fields: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON of `fields`, 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(dict(fields)).encode()).hexdigest()


def sample_seed(run_fingerprint: str, shard: str, index: int) -> int:
    """The seed (63 bits) of every random number of one sample: independent of batch, worker and
    attempt.
    """
    text = canonical_json([run_fingerprint, shard, index])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _check_keys(value: Any) -> None:
    if isinstance(value, Mapping):
        for key, child in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a fingerprint field needs string keys, got {key!r}")
            _check_keys(child)
    elif isinstance(value, list | tuple):
        for child in value:
            _check_keys(child)
