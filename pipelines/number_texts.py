"""How the report and the plan write numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def count(value: int) -> str:
    """12,345."""
    return f"{value:,}"


def three(value: float | None) -> str:
    """Three significant digits; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    value = float(f"{value:.3g}")  # else 0.00999999 would show four digits
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    if abs(value) < 1e-4:
        return f"{value:.2e}".replace("-", "−")
    return f"{value:,.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """A strength: +0.1, −0.05."""
    return f"{value:+.6g}".replace("-", "−")


def percent(value: float) -> str:
    """A share in whole percent, never rounded up to all."""
    return "100 %" if value >= 1 else f"{min(value * 100, 99.9):.3g} %"


def size(value: int) -> str:
    """Bytes in decimal units."""
    amount = float(value)
    for unit in _UNITS[:-1]:
        if amount < 1000:
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:,.3g} {_UNITS[-1]}"


def duration(seconds: float) -> str:
    """8.3 s, 12 min, 3.4 h."""
    if seconds < 90:
        return f"{three(seconds)} s"
    if seconds < 90 * 60:
        return f"{three(seconds / 60)} min"
    return f"{three(seconds / 3600)} h"


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "three": three,
    "signed": signed,
    "percent": percent,
    "size": size,
    "duration": duration,
}
"""Name in the template -> function."""
