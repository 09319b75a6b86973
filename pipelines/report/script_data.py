"""Data as scripts: a page opened from disk may load a .js file beside it, but not fetch JSON.

Texts come from other people's shards. They are only ever set as text by the page, and leave no
character here that could end a script or a line of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&"}


def call(function: str, *arguments: Any) -> bytes:
    """The script `function(arguments);`, arguments as JSON in ASCII; NaN and infinities are null.

    U+2028 and everything else beyond ASCII becomes an escape, and so do <, > and &: they stand in
    strings alone, where the escape means the same.
    """
    texts = [
        json.dumps(plain(argument), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        for argument in arguments
    ]
    return f"{function}({','.join(texts)});\n".translate(_ESCAPED).encode("ascii")


def plain(value: Any) -> Any:
    """`value` without numbers that JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value
