"""The one reference image of a run, wherever it lies."""

from __future__ import annotations

import hashlib

from lib.files import storage
from lib.problems import ConfigProblem


def reference_bytes(path: str) -> bytes:
    """The file's content.

    Raises:
        ConfigProblem: it is not there.
    """
    try:
        return storage.read_bytes(path)
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"discover.reference.image: expected an image file, found nothing at"
            f" {storage.redact(path)}"
        ) from error


def reference_sha256(path: str) -> str:
    """Of the file's content; raises as `reference_bytes`."""
    return hashlib.sha256(reference_bytes(path)).hexdigest()
