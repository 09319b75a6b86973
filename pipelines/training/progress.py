"""How far a training is: what its first worker says, and leaves in the output folder for others to
read.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lib.files import storage

FILE = "progress.json"
_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of a training."""

    phase: str
    """loading, reading examples, training or done."""
    step: int = 0
    steps: int = 0
    terms: Mapping[str, float] = field(default_factory=dict)
    """Of the last step's loss."""
    examples_per_s: float = 0.0


class ProgressFile:
    """Writes what it is told, at most every two seconds but for a change of phase."""

    def __init__(self, root: str) -> None:
        self._url = storage.join(root, FILE)
        self._phase = ""
        self._at = 0.0

    def __call__(self, progress: Progress) -> None:
        """See `Progress`."""
        now = time.monotonic()
        if progress.phase == self._phase and now - self._at < _EVERY_S:
            return
        self._phase, self._at = progress.phase, now
        storage.replace(self._url, (json.dumps(asdict(progress)) + "\n").encode())


def read_progress(root: str) -> Progress | None:
    """What was last written; None where nothing was, or it cannot be read."""
    try:
        values: dict[str, Any] = json.loads(storage.read_bytes(storage.join(root, FILE)))
        return Progress(**values)
    except (FileNotFoundError, ValueError, TypeError):
        return None
