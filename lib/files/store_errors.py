"""What an error of a store means: whether it may pass, and in which words a user is told.

Backends raise classes of their own HTTP clients, which cannot be named here without importing them;
they are known by class name, HTTP status and the store's error code.
"""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from types import TracebackType

from lib.files.redaction import redact

_PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "BandwidthLimitExceeded",
        "ConditionalRequestConflict",  # two writers in the same moment
        "IncompleteBody",
        "InternalError",
        "NoSuchUpload",  # completed, but the answer was lost; or aborted by a rule of the bucket
        "OperationAborted",
        "RequestLimitExceeded",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "SlowDownRead",
        "SlowDownWrite",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "XAmzContentSHA256Mismatch",  # the body was damaged on its way
    }
)
_PASSING_CLASSES = frozenset(
    {
        "ClientConnectionError",  # aiohttp
        "ClientPayloadError",
        "ConnectionError",  # botocore, which has its own
        "FlexibleChecksumError",
        "HTTPClientError",
        "IncompleteRead",
        "IncompleteReadError",
        "ResponseParserError",  # a throttled answer may be no XML
        "ServiceRequestError",  # azure
        "ServiceResponseError",
        "TransportError",  # google.auth
    }
)
_PASSING_ERRNOS = frozenset(
    {errno.EPIPE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN}
)
_FINAL_CLASSES: tuple[type[BaseException], ...] = (
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
)
_NO_SUCH_HOST = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})

_CHECK_KEYS = "check the credentials (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, profile)"
_CHECK_REGION = "check the region (AWS_DEFAULT_REGION) and the endpoint_url"
_ADVICE = {
    "AccessDenied": "check that these credentials may read, write and list here",
    "403": "check that these credentials may read, write and list here",
    "AllAccessDisabled": "check the bucket's policy",
    "AuthorizationHeaderMalformed": _CHECK_REGION,
    "ExpiredToken": "get new credentials: these have expired",
    "IllegalLocationConstraintException": _CHECK_REGION,
    "InvalidAccessKeyId": _CHECK_KEYS,
    "InvalidToken": _CHECK_KEYS,
    "NotImplemented": "the server lacks what is asked of it: see `Object stores` in the README",
    "PermanentRedirect": _CHECK_REGION,
    "RequestTimeTooSkewed": "set this machine's clock",
    "SignatureDoesNotMatch": _CHECK_KEYS,
}
_ADVICE_BY_CLASS = {
    "NoCredentialsError": _CHECK_KEYS,
    "PartialCredentialsError": _CHECK_KEYS,
    "ProfileNotFound": "check AWS_PROFILE",
}


class ObjectTooLargeError(ValueError):
    """An object is larger than its reader allows."""


class ObjectReplacedError(OSError):
    """An object was written anew while it was read in parts."""


class StoreUnavailableError(OSError):
    """A store kept failing, in ways that may pass, for as long as was waited."""


def store_code(error: BaseException | None) -> str:
    """The error code that an S3 server sent, "" if none."""
    for each in (error, getattr(error, "__cause__", None)):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def http_status(error: BaseException | None) -> int | None:
    """The HTTP status of the answer that an error speaks of, None if it speaks of none."""
    for each in (error, getattr(error, "__cause__", None)):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status if isinstance(status, int) else None
        for name in ("status", "status_code", "code"):
            status = getattr(each, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return status
    return None


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: overload, a cut connection, a timeout,
    two writers in the same moment; not what is missing, forbidden or badly asked.
    """
    if store_code(error) in _PASSING_CODES:
        return True
    if isinstance(error, _FINAL_CLASSES) or not isinstance(error, Exception):
        return False
    if _names_no_host(error):
        return False
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in _chain(error)):
        return False
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    if any(kind.__name__ in _PASSING_CLASSES for kind in type(error).__mro__):
        return True
    status = http_status(error)
    if status is not None:
        return status in _PASSING_STATUSES
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS


def plain(error: Exception, url: str) -> OSError:
    """`error` of a backend as the error that Python has for files, without credentials and with
    advice where there is some.
    """
    where, code, status = redact(url), store_code(error), http_status(error)
    if isinstance(error, FileExistsError) or code == "PreconditionFailed" or status == 412:
        return FileExistsError(f"{where}: there is already an object of this name")
    if code == "NoSuchBucket":
        return FileNotFoundError(
            f"{where} does not exist: there is no such bucket; check its name and the endpoint_url"
        )
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{where} does not exist")
    advice = _ADVICE.get(code) or _ADVICE_BY_CLASS.get(type(error).__name__, "")
    if status in (401, 403):
        advice = advice or _ADVICE["403"]
    if _names_no_host(error):
        advice = "check the name of the host (endpoint_url)"
    reason = redact(str(error), url).strip().rstrip(".") or type(error).__name__
    text = f"{where}: {reason}" + (f"; {advice}" if advice else "")
    if isinstance(error, PermissionError) or status in (401, 403) or advice == _CHECK_KEYS:
        return PermissionError(text)
    for known in (IsADirectoryError, NotADirectoryError, TimeoutError, ObjectReplacedError):
        if isinstance(error, known):
            return known(text)
    return OSError(getattr(error, "errno", None) or errno.EIO, text)


class PlainErrors:
    """A `with` block that turns what a backend raises for `url` into an OSError.

    An error of Python itself (TypeError, ImportError, ...) passes unchanged.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception):
            return
        if isinstance(error, ObjectTooLargeError | StoreUnavailableError):
            return
        if not isinstance(error, OSError) and type(error).__module__ == "builtins":
            return
        # The backend's own text may hold credentials: it must not reach a traceback either.
        raise plain(error, self._url) from None


def _names_no_host(error: BaseException) -> bool:
    return any(
        isinstance(each, socket.gaierror) and each.errno in _NO_SUCH_HOST for each in _chain(error)
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it came from, the nearest first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
