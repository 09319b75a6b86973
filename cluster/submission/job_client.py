"""The way to a Ray head's Jobs API: its address, its token, and its errors in words.

A token that the environment holds is used without further ado, and is never printed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.pools.protocol import ClusterProblem
from lib.files import storage

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_ADDRESS = "RAY_API_SERVER_ADDRESS"
_RAY_ADDRESS = "RAY_ADDRESS"
_MODE, _TOKEN, _TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_TIMEOUT_S = 10.0


class HeadLostError(ConnectionError):
    """The head no longer answers; what it runs may go on."""


def head_address(given: str | None) -> str:
    """The dashboard's URL: `given`, else RAY_API_SERVER_ADDRESS, else an http RAY_ADDRESS.

    Raises:
        ClusterProblem: there is none, or it is of another kind.

    """
    found = given or os.environ.get(_ADDRESS)
    if not found and os.environ.get(_RAY_ADDRESS, "").startswith(("http://", "https://")):
        found = os.environ[_RAY_ADDRESS]
    if not found:
        raise ClusterProblem(
            "--address: expected the address of a Ray dashboard, such as http://HEAD:8265, here or"
            f" in {_ADDRESS}, got none"
        )
    if "://" not in found:
        found = f"http://{found}"
    if not found.startswith(("http://", "https://")):
        raise ClusterProblem(
            f"--address: expected a Ray dashboard, such as http://HEAD:8265, got {found!r}"
        )
    return found.rstrip("/")


def job_client(address: str) -> JobSubmissionClient:
    """A client that has spoken with the head at `address` (from `head_address`).

    Raises:
        ClusterProblem: no dashboard answers there, or it refuses our token; says what to set.

    """
    _settle_token()
    _look_for_dashboard(address)
    os.environ[_ADDRESS] = address  # Ray prefers the environment to its argument
    import ray.dashboard.modules.dashboard_sdk
    import ray.dashboard.modules.job.sdk
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", ray.dashboard.modules.dashboard_sdk.__name__):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(ray.dashboard.modules.job.sdk.__name__).setLevel(logging.ERROR)
    with plain_errors(address):
        return JobSubmissionClient(address)


@contextmanager
def plain_errors(address: str) -> Iterator[None]:
    """Turns what Ray's client raises into ClusterProblem and HeadLostError, each one sentence."""
    import aiohttp
    import requests
    from ray.exceptions import AuthenticationError

    where = storage.redact(address)
    try:
        yield
    except HeadLostError:
        raise
    except AuthenticationError as error:
        raise _no_entry(address) from error
    except aiohttp.WSServerHandshakeError as error:
        if error.status in (401, 403):
            raise _no_entry(address) from error
        raise ClusterProblem(f"the Ray head at {where} answered {error.status}") from error
    except (requests.RequestException, aiohttp.ClientError, ConnectionError) as error:
        raise HeadLostError(f"the Ray head at {where} no longer answers") from error
    except RuntimeError as error:
        said = re.sub(r"^Request failed with status code \d+: ", "", str(error).strip())
        first = (said.splitlines() or [type(error).__name__])[0]
        raise ClusterProblem(f"the Ray head at {where} says: {first}") from error


def _settle_token() -> None:
    """A token in the environment means that it is to be used; Ray asks for the mode besides."""
    path = os.environ.get(_TOKEN_PATH)
    if path and not os.environ.get(_TOKEN):
        try:
            held = Path(path).expanduser().read_text().strip()
        except (OSError, UnicodeDecodeError):
            held = ""
        if not held:  # Ray would abort the whole process
            raise ClusterProblem(
                f"{_TOKEN_PATH}: expected a file with the token of the Ray head, got {path!r},"
                " which cannot be read or is empty"
            )
    if path or os.environ.get(_TOKEN):
        os.environ.setdefault(_MODE, "token")


def _look_for_dashboard(address: str) -> None:
    """Ray's client waits for minutes where nobody answers, and takes any web server for a head."""
    import requests

    where = storage.redact(address)
    try:
        answer = requests.get(f"{address}/api/version", timeout=_TIMEOUT_S)
    except requests.RequestException as error:
        raise ClusterProblem(
            f"no Ray dashboard answers at {where} ({type(error).__name__}); check host and port"
            " (8265 unless its head was started otherwise), and that this machine reaches it: a"
            " dashboard listens on its own machine only unless started with"
            " --dashboard-host=0.0.0.0, else use `ssh -L` or `kubectl port-forward`"
        ) from error
    if answer.status_code in (401, 403):  # without a token, which is right
        return
    try:
        known = "ray_version" in answer.json()
    except ValueError:
        known = False
    if not known:
        raise ClusterProblem(
            f"--address: expected a Ray dashboard at {where}, found something else there (it"
            f" answered {answer.status_code})"
        )


def _no_entry(address: str) -> ClusterProblem:
    given = os.environ.get(_TOKEN) or os.environ.get(_TOKEN_PATH)
    what = "refuses the token that we have" if given else "wants a token"
    return ClusterProblem(
        f"the Ray head at {storage.redact(address)} {what}; set {_TOKEN}, or {_TOKEN_PATH} to a"
        " file that holds it, to the token its head was started with"
    )
