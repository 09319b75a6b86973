"""What of a config decides the pixels: the fields that the fingerprint covers.

Left out is where things lie and how the work is done; the model and a library enter by what is in
them.
"""

from __future__ import annotations

import hashlib
from typing import Any

from lib import schemas, storage
from lib.checkpoint import open_checkpoint, weights_sha256
from lib.library_files import library_files
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery


def fingerprint_fields(config: RunConfig) -> dict[str, Any]:
    """Plain JSON fields for `lib.fingerprint.fingerprint`. Reads the weights once, without torch.

    Raises:
        ModelProblem: the checkpoint's files are not there.
        ConfigProblem: the library's files are not there.

    """
    fields: dict[str, Any] = config.model_dump(
        mode="json",
        exclude={
            "execution": True,
            "input": {"shards", "max_shard_bytes"},
            "output": {"folder"},
            "model": {"checkpoint"},
        },
    )
    fields["schema_version"] = schemas.SCHEMA_VERSION
    fields["model"]["weights_sha256"] = weights_sha256(open_checkpoint(config.model.checkpoint))
    if isinstance(config.discover, LibraryDiscovery):
        del fields["discover"]["path"]
        fields["discover"]["library_sha256"] = _library_sha256(config.discover.path)
    return fields


def _library_sha256(path: str) -> str:
    """Of all files in the order they are read: that order decides which directions are taken."""
    digest = hashlib.sha256()
    for url in library_files(path):
        digest.update(hashlib.sha256(storage.read_bytes(url)).digest())
    return digest.hexdigest()
