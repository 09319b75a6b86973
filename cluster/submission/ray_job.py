"""A run as a job of a Ray cluster: sent, followed to its end, stopped.

Ray starts a job once and never again; what goes on after a stop, a crash or a lost head is the same
config submitted again, because the run folder knows what is done.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.scheduling.orders import EXIT_DONE, EXIT_FAILED
from cluster.submission.code_package import CodePackage
from cluster.submission.job_client import plain_errors
from cluster.submission.travelling_config import config_text
from lib.files import storage
from lib.problems import ConfigProblem
from pipelines.config import RunConfig

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

CONFIG_FILE = "deltah-run.yaml"
"""In the job's working folder."""
FOLDER_KEY = "deltah_run_folder"
"""In a job's metadata: where its results go."""
STOP_WAIT = "RAY_JOB_STOP_WAIT_TIME_S"
"""Environment of a job from which Ray takes how long it waits between SIGTERM and SIGKILL."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_PACE_S = 0.5
_SILENCE_S = 120.0
_TRIES_IN_VAIN = 3
"""Connections that break before anything new; then the log of an ended job has no more to give."""
_OUR_EXIT_CODES = range(5)


@dataclass(frozen=True, slots=True)
class Submission:
    """What is sent."""

    config: RunConfig
    name: str
    """The job's id begins with it."""
    code: CodePackage | None
    """None where the cluster's machines have deltah installed."""
    drain_s: int
    """How long a stopped job may finish its shards in flight."""
    retry_quarantined: bool
    runtime_env: Mapping[str, Any]
    """More of Ray's runtime environment, such as `pip` or `env_vars`."""

    def __post_init__(self) -> None:
        """Raises ConfigProblem for a name that could not be part of an address."""
        if not _NAME.fullmatch(self.name):
            raise ConfigProblem(
                f"--name: expected letters, digits and _ . -, at most 64, got {self.name!r}"
            )


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended."""

    exit_code: int
    """Of deltah where it came so far, else 1."""
    sentence: str


def submit(client: JobSubmissionClient, what: Submission) -> str:
    """Send it; returns the job's id.

    Raises:
        ClusterProblem, HeadLostError: see `plain_errors`.

    """
    arguments = ["run", CONFIG_FILE]
    if what.retry_quarantined:
        arguments.append("--retry-quarantined")
    environment = {STOP_WAIT: str(what.drain_s)} | dict(what.runtime_env.get("env_vars") or {})
    with tempfile.TemporaryDirectory(prefix="deltah") as folder, plain_errors(client.get_address()):
        if what.code is not None:
            what.code.copy_to(Path(folder))
        (Path(folder) / CONFIG_FILE).write_text(config_text(what.config))
        return client.submit_job(
            # exec: signals reach the driver itself, not a shell around it
            entrypoint=f"exec python -m cluster {shlex.join(arguments)}",
            submission_id=f"{what.name}-{secrets.token_hex(3)}",
            runtime_env={**what.runtime_env, "working_dir": folder, "env_vars": environment},
            metadata={FOLDER_KEY: storage.redact(what.config.output.folder)},
        )


def follow(client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> Ended:
    """Hand the job's log to `write` until the job has ended.

    Raises:
        ClusterProblem: there is no such job, or the token is refused.
        HeadLostError: the head no longer answers; the job may go on.
        KeyboardInterrupt: the job goes on.

    """
    log = _Log(client, job, write)
    in_vain = 0
    while True:
        details = job_details(client, job)
        before = log.written
        with plain_errors(client.get_address()):
            whole = asyncio.run(log.tail())
        in_vain = 0 if whole or log.written > before else in_vain + 1
        # The log is read after the question, so all of it.
        if details.status.is_terminal() and (whole or in_vain == _TRIES_IN_VAIN):
            return ended(job, details)
        time.sleep(_PACE_S)


class _Log:
    """A job's log as it grows, every character once, over as many connections as it takes."""

    def __init__(self, client: JobSubmissionClient, job: str, write: Callable[[str], None]) -> None:
        self._client = client
        self._job = job
        self._write = write
        self.written = 0
        """Characters."""

    async def tail(self) -> bool:
        """Until the job has ended, then True; False where the connection broke or was silent."""
        from aiohttp import ClientConnectionError

        seen = 0  # every connection begins at the log's beginning
        parts = self._client.tail_job_logs(self._job)
        with suppress(TimeoutError, RuntimeError, ClientConnectionError):
            while True:
                # Not wait_for, which loses a Ctrl-C that comes together with a text.
                async with asyncio.timeout(_SILENCE_S):
                    text = await anext(parts, None)
                if text is None:
                    return True
                seen += len(text)
                if seen > self.written:
                    self._write(text[len(text) - (seen - self.written) :])
                    self.written = seen
        return False


def stop(client: JobSubmissionClient, job: str) -> bool:
    """Ask for the job's end, whether or not it has ended; False if it had.

    Raises:
        ClusterProblem, HeadLostError: see `plain_errors`.

    """
    with plain_errors(client.get_address()):
        return client.stop_job(job)


def job_details(client: JobSubmissionClient, job: str) -> JobDetails:
    """What Ray knows of a job; raises as `stop`."""
    with plain_errors(client.get_address()):
        return client.get_job_info(job)


def drain_s(details: JobDetails) -> int:
    """How long Ray waits for the job when it is stopped, in seconds; 3 is Ray's own choice."""
    environment = (details.runtime_env or {}).get("env_vars") or {}
    return int(environment.get(STOP_WAIT, 3))


def ended(job: str, details: JobDetails) -> Ended:
    """What the end of a job means for whoever waited for it."""
    status, code = details.status.value, details.driver_exit_code
    if status == "STOPPED":
        return Ended(EXIT_FAILED, f"job {job} was stopped; submit the same config again to go on")
    if code is not None and code in _OUR_EXIT_CODES:
        return Ended(code, f"job {job} ended with exit code {code}")
    if code is not None:
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        return Ended(EXIT_FAILED, f"job {job} ended {how}; submit the same config again to go on")
    if status == "SUCCEEDED":
        return Ended(EXIT_DONE, f"job {job} ended well")
    lines = [line.strip() for line in (details.message or "").splitlines() if line.strip()]
    reason = lines[-1] if lines else "Ray does not say why"
    return Ended(EXIT_FAILED, f"job {job} could not be carried out: {reason}")
