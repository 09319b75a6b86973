"""Peak memory of this process."""

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
        (line,) = (x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
