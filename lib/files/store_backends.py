"""Which fsspec backend serves a URL, and how it is set up beneath what the user configures."""

from __future__ import annotations

import functools
import os
import socket
from typing import Any

import fsspec

UPLOAD_CHUNK_BYTES = 16 * 2**20
"""S3 objects of two chunks and more are uploaded as parallel parts of this size."""

_READ_TIMEOUT_S = 30.0
"""Without a byte. For S3 also: for which a server may take nothing of what is sent to it."""
_CONNECT_TIMEOUT_S = 10.0

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".png": "image/png",
}
"""Of what browsers open where it lies: without one they would download a report."""


def local_path(url: str) -> str | None:
    """The path of a local URL, None for another store."""
    for scheme in ("file://", "local://"):
        if url.startswith(scheme):
            return url.removeprefix(scheme)
    return None if "://" in url else os.path.expanduser(url)


def is_s3(url: str) -> bool:
    """Whether s3fs serves `url`."""
    return url.startswith(("s3://", "s3a://"))


def backend(url: str) -> tuple[Any, str]:
    """The fsspec filesystem of `url` and the path in it.

    Listings are never cached: a resume, or a look for a rival's commit, must see what is there now.
    """
    options: dict[str, Any] = {"use_listings_cache": False}
    if is_s3(url):
        options["config_kwargs"] = _s3_settings()
    elif url.startswith(("http://", "https://")):
        options["client_kwargs"] = _http_settings()
    fs, path = fsspec.core.url_to_fs(url, **options)
    if is_s3(url):
        # botocore tries each request again, with jitter and a quota; this loop would multiply that.
        fs.retries = 1
    return fs, str(path)


def protocols(fs: Any) -> tuple[str, ...]:
    """The URL schemes that a backend serves."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def uploads_in_parts(fs: Any, size: int) -> bool:
    """Whether `pipe_file` with `upload_options` would send `size` bytes in several requests."""
    return "s3" in protocols(fs) and size >= 2 * UPLOAD_CHUNK_BYTES


def upload_options(fs: Any, path: str) -> dict[str, int | str]:
    """Arguments for the backend's `pipe_file` of the object at `path`."""
    if "s3" not in protocols(fs):
        return {}
    options: dict[str, int | str] = {"chunksize": UPLOAD_CHUNK_BYTES}
    kind = _CONTENT_TYPES.get(os.path.splitext(path)[1])
    return options | ({"ContentType": kind} if kind else {})


def _configured(name: str, *protocols: str) -> dict[str, Any]:
    """What the user's fsspec configuration says under `name`."""
    found: dict[str, Any] = {}
    for protocol in protocols:
        found |= fsspec.config.conf.get(protocol, {}).get(name, {})
    return found


def _s3_settings() -> dict[str, Any]:
    """botocore's configuration: what the user says, and where nothing is said, retries by AWS's
    `standard` rules and timeouts.
    """
    own = _configured("config_kwargs", "s3", "s3a")
    settings = {"read_timeout": _READ_TIMEOUT_S, "connect_timeout": _CONNECT_TIMEOUT_S} | own
    retries = dict(own.get("retries", {}))
    if "AWS_RETRY_MODE" not in os.environ:
        retries.setdefault("mode", "standard")
    settings["retries"] = retries
    if "http_session_cls" not in own:
        factory = functools.partial(_impatient_socket, settings["read_timeout"])
        settings["connector_args"] = {"socket_factory": factory} | own.get("connector_args", {})
    return settings


def _impatient_socket(timeout_s: float, address: tuple[Any, ...]) -> socket.socket:
    """A socket on which a peer that takes nothing any more is an error: aiohttp waits for ever."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(timeout_s * 1000))
    return made


def _http_settings() -> dict[str, Any]:
    """aiohttp's session: five minutes in all, its default, are too few for a large shard, and too
    many for a server that is silent.
    """
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_READ_TIMEOUT_S)
    return {"timeout": timeout} | _configured("client_kwargs", "http", "https")
