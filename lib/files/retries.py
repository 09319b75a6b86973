"""A store that fails for a while is asked again, and in the end given up with one sentence.

The one place where that is decided. Below it, botocore has tried each request of S3 a few times by
itself (`store_backends`), which is enough for a single refusal; here whole operations are repeated,
for what botocore does not see (a body cut while it is read, two writers in the same moment) and for
outages of minutes. Every wait is random below a limit that doubles, so that a thousand workers that
were refused together do not come back together.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from lib.files.redaction import redact
from lib.files.store_backends import backend
from lib.files.store_errors import PlainErrors, StoreUnavailableError, may_pass, plain
from lib.problems import Problem

T = TypeVar("T")

VARIABLE = "DELTAH_STORE_PATIENCE_S"
DEFAULT_PATIENCE_S = 300.0
MOST_TRIES = 20
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""The limits of the random waits after the first failure and after many."""

_log = logging.getLogger(__name__)
_here = threading.local()


def ask(url: str, work: Callable[[Any, str], T]) -> T:
    """`work(fs, path)` on the backend of `url`, again while it fails in a way that may pass: at
    most MOST_TRIES times, and for no longer than `patience_s()` before the last one begins.

    `work` may have taken effect although it failed, when only the answer was lost.

    Raises:
        StoreUnavailableError: it failed to the end; says how often and for how long.
        OSError: at once, what trying again cannot help; see `store_errors.plain`.
    """
    tries = Retrying(
        retry=retry_if_exception(may_pass),
        wait=wait_random_exponential(multiplier=FIRST_WAIT_S, max=LONGEST_WAIT_S),
        stop=stop_after_attempt(MOST_TRIES) | stop_before_delay(patience_s()),
        before_sleep=lambda state: _tell(url, state),
        retry_error_callback=lambda state: _give_up(url, state),
    )
    with PlainErrors(url):
        fs, path = backend(url)
        return tries(work, fs, path)


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Within, this thread waits no longer than `seconds` for a store: for a loop that has more to
    do and can ask again later.
    """
    before = getattr(_here, "patience_s", None)
    _here.patience_s = seconds
    try:
        yield
    finally:
        _here.patience_s = before


def patience_s() -> float:
    """For how long an operation on a store is tried again.

    Raises:
        Problem: the environment says something else than a number of seconds.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text) if text else DEFAULT_PATIENCE_S
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise Problem(f"{VARIABLE}: expected a number of seconds, such as 300, got {text!r}")
    here = getattr(_here, "patience_s", None)
    return seconds if here is None else min(here, seconds)


def _tell(url: str, state: RetryCallState) -> None:
    """Once an operation, so that a wait of minutes is no riddle."""
    log = _log.warning if state.attempt_number == 2 else _log.debug
    reason = _reason(url, _failure(state))
    log("%s: %s; trying again for up to %.0f s", redact(url), reason, patience_s())


def _give_up(url: str, state: RetryCallState) -> Any:
    seconds = state.seconds_since_start or 0.0
    raise StoreUnavailableError(
        f"{redact(url)}: the store failed {state.attempt_number} times in {seconds:.0f} s, last"
        f" with: {_reason(url, _failure(state))}; check that it is up and can be reached"
        f" (endpoint_url, proxy), or wait longer with {VARIABLE}"
    )


def _reason(url: str, error: Exception) -> str:
    text = plain(error, url)
    return str(text.strerror or text).removeprefix(f"{redact(url)}: ")


def _failure(state: RetryCallState) -> Exception:
    error = state.outcome.exception() if state.outcome is not None else None
    if not isinstance(error, Exception):
        raise TypeError(f"expected an attempt that failed, got {state.outcome}")
    return error
