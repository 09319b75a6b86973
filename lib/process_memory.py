"""Memory of this process."""

from __future__ import annotations

import resource
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Largest resident set since the program began.

    Linux hands the maximum of `getrusage` down from the process that started this one; the mark in
    /proc begins anew.
    """
    if _STATUS.exists():
        return _status("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def shared_bytes() -> int:
    """Shared memory that this process has ever touched: of Ray's object store all that it put there
    or got from there, also what has been deleted since. Linux only.
    """
    return _status("RssShmem")


def _status(key: str) -> int:
    (line,) = (x for x in _STATUS.read_text().splitlines() if x.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
