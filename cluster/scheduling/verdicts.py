"""What an error that left a shard means for the run: try again, give the shard up, or stop.

The judgement is made where the error is, in the worker, so that only this small record crosses
process borders: exceptions of libraries do not always survive pickling.
"""

from __future__ import annotations

import errno
import traceback as tracebacks
from dataclasses import dataclass
from typing import Literal

from lib.files import storage
from lib.files.samples import ShardDamage
from lib.out_of_memory import is_out_of_memory
from lib.problems import Problem
from lib.receipts import ShardCancelled

Verdict = Literal[
    "retry",
    "vanished",
    "unavailable",
    "damaged",
    "worker_broken",
    "output_failed",
    "output_refused",
    "refused",
    "cancelled",
]
"""retry: may be chance. vanished: the shard is not there. unavailable: its store did not answer,
which may be the store's fault or the shard's. damaged: it will never be readable.
worker_broken: the process must be replaced. output_failed: the output store failed, not the shard.
output_refused: it takes no more writes. refused: config or model are wrong. cancelled: it was
stopped on our order."""

_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_MAX_TRACEBACK_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Raised:
    """An error, as text, and what it means."""

    kind: str
    """The class name."""
    message: str
    traceback: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}" if self.message else self.kind


def describe(error: BaseException, output_folder: str | None = None) -> Raised:
    """Judge `error`; `output_folder` tells a refused write from a refused read."""
    lines = tracebacks.format_exception(error)
    text = "".join(lines)
    if len(text) > _MAX_TRACEBACK_CHARS:
        half = _MAX_TRACEBACK_CHARS // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    message = str(error.code) if isinstance(error, SystemExit) else str(error)
    return Raised(
        type(error).__name__,
        storage.redact(message),
        storage.redact(text),
        _judge(error, output_folder),
    )


def _judge(error: BaseException, output_folder: str | None) -> Verdict:
    if isinstance(error, ShardCancelled):
        return "cancelled"
    if isinstance(error, ShardDamage | storage.ObjectTooLargeError):
        return "damaged"
    if isinstance(error, Problem):
        return "refused"
    failed_kernel = type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)
    if failed_kernel and not is_out_of_memory(error):
        return "worker_broken"  # after one failed kernel every call of that process fails
    if isinstance(error, OSError):
        on_output = _concerns_output(error, output_folder)
        if error.errno in _REFUSALS or (isinstance(error, PermissionError) and on_output):
            return "output_refused"
        if on_output:
            return "output_failed"
        if isinstance(error, storage.StoreUnavailableError):
            return "unavailable"
    return "vanished" if isinstance(error, FileNotFoundError) else "retry"


def _concerns_output(error: OSError, output_folder: str | None) -> bool:
    """Whether the file it names lies in the output, or the commit protocol was running."""
    if output_folder and isinstance(error.filename, str):
        folder = output_folder.removeprefix("file://").rstrip("/")
        if error.filename.removeprefix("file://").startswith(folder + "/"):
            return True
    return any(
        frame.f_globals.get("__name__") == "lib.ledger.commit"
        for frame, _ in tracebacks.walk_tb(error.__traceback__)
    )
