"""Credentials taken out of texts: what a user gave in URLs, in the environment and to fsspec.

Every message, event and record passes here before it is written or printed. fsspec is imported
where a text has to be cleaned, so that the command line starts without it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

_STARS = "***"
_USER_INFO = re.compile(r"(?<=://)(?:[^/\s]*@|[^/\s:@]*:(?!\d{1,5}/)[^\s@'\"]*@)")
"""`user:password@`; the second form is a password with slashes, as secret keys of S3 have them."""
_QUERY_VALUE = re.compile(r"([?&][^=&?\s'\"]+)=[^&\s'\"]*")
_SECRET_NAME = re.compile(
    r"(?:secret|token|password|passwd|passphrase|key|key_id|sas|credential|authorization"
    r"|connection_string)$",
    re.IGNORECASE,
)
_SHORTEST_SECRET = 8
"""Shorter values are words that a message may need."""


def redact(text: str, url: str = "") -> str:
    """`text` with stars for every URL's `user:password@` and query values, and for the values of
    environment variables and fsspec settings whose names say that they are secret. What `url`
    holds of such is starred wherever it stands: a server may repeat it in its answer.
    """
    for secret in _secrets(url):
        text = text.replace(secret, _STARS)
    text = _USER_INFO.sub(f"{_STARS}@", text)
    return _QUERY_VALUE.sub(rf"\1={_STARS}", text)


def _secrets(url: str) -> list[str]:
    """The longest first, so that none is cut by another that it contains."""
    from fsspec.config import conf

    found = {*_named(os.environ), *_named(conf)}
    found |= {match[0][:-1].partition(":")[2] for match in _USER_INFO.finditer(url)}
    found |= {match[0].partition("=")[2] for match in _QUERY_VALUE.finditer(url)}
    long = {value for value in found if len(value) >= _SHORTEST_SECRET}
    return sorted(long | {quote(value, safe="") for value in long}, key=len, reverse=True)


def _named(settings: Mapping[str, object]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _named(value)
        elif isinstance(value, str) and _SECRET_NAME.search(name):
            yield value
