"""What run.json says of a run, and how two runs differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from lib.files import storage
from lib.fingerprint import canonical_json, fingerprint
from lib.provenance import git_commit, package_versions

RUN_VERSION = 3
"""Raised whenever run.json or the layout of the folder changes its meaning."""

_ABSENT = "<absent>"


def run_record(
    fields: Mapping[str, Any],
    config: Mapping[str, Any],
    stores: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """What run.json holds: `fields` is what the fingerprint covers, `config` the whole config as
    plain JSON, of which credentials in URLs are starred out, and `stores` what changes no pixel
    but must be the same in all shards of a folder: what is stored beside the results.
    """
    return {
        "v": RUN_VERSION,
        "fingerprint": fingerprint(fields),
        "fields": json.loads(canonical_json(dict(fields))),
        "stores": json.loads(canonical_json(dict(stores))),
        "config": _redacted(json.loads(canonical_json(dict(config)))),
        "versions": dict(package_versions()),
        "git_commit": git_commit(),
    }


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """`path: value there / value now` for every leaf in which two trees of fields differ."""
    old, new = dict(_leaves(there, "")), dict(_leaves(now, ""))
    for path in sorted(old.keys() | new.keys()):
        before, after = old.get(path, _ABSENT), new.get(path, _ABSENT)
        if before != after:
            yield f"{path}: {before} / {after}"


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    else:
        yield path, canonical_json(value)


def _redacted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _redacted(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_redacted(child) for child in value]
    return storage.redact(value) if isinstance(value, str) else value
