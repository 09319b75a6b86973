"""A connection to Ray: a named cluster, or one of our own on this machine that ends with us.

Never a bare `ray.init()`, which joins whatever cluster it finds; never `ray stop`, which ends all.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from cluster.installation import OBJECT_STORE_BYTES, PROJECT_ROOT
from cluster.pools.protocol import ClusterProblem

_LONGEST_TEMP_FOLDER = 30
"""Characters; a Unix socket's path holds 107, and Ray's own part takes up to 70."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """What one worker occupies."""

    gpus: float
    threads: int

    @property
    def cpus(self) -> float:
        """Bookkeeping only. None beside a GPU: CPUs are not what limits those, and asking for some
        would leave GPUs idle on machines with few."""
        return 0.0 if self.gpus else float(self.threads)

    def __str__(self) -> str:
        if self.gpus:
            return f"{self.gpus:g} GPU"
        return f"{self.threads} CPU"


@dataclass(frozen=True, slots=True)
class Session:
    """A live connection."""

    own: bool
    """Whether the cluster is ours, on this machine alone."""
    import_path: Mapping[str, str]
    """Environment that lets workers import this project."""


@contextmanager
def ray_session(address: str | None, workers: int, resources: Resources) -> Iterator[Session]:
    """Connect to `address`, else RAY_ADDRESS, else start a cluster here; ends only what it started.

    Raises:
        ClusterProblem: the cluster cannot be reached, or cannot hold the workers.

    """
    if ray.is_initialized():
        _check_room(workers, resources, own=False)
        yield Session(own=False, import_path={})
        return
    target = address or os.environ.get("RAY_ADDRESS") or "local"
    if target == "auto" or target.startswith(("http://", "https://")):
        raise ClusterProblem(
            f"--address: expected the host:port of a Ray head (or `local`), got {target!r}; a"
            " dashboard address is for `deltah submit CONFIG --address URL`"
        )
    own = target == "local"
    folder: str | None = None
    options: dict[str, Any] = {}
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        folder = None if os.environ.get("RAY_TMPDIR") else _temp_folder()
        options = {
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE_BYTES,
            "num_cpus": max(os.cpu_count() or 1, workers * resources.threads),
        }
        if folder:
            options["_temp_dir"] = folder
    try:
        _connect(target, options)
        try:
            _check_room(workers, resources, own=own)
            yield Session(own=own, import_path=_import_path() if own else {})
        finally:
            ray.shutdown()
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _connect(target: str, options: Mapping[str, Any]) -> None:
    try:
        ray.init(
            address=target,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            **options,
        )
    except ray.exceptions.AuthenticationError as error:
        raise ClusterProblem(
            f"the Ray cluster at {target} refuses our token; set RAY_AUTH_MODE=token, and"
            " RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the token its head was started with:"
            f" {_first_line(error)}"
        ) from error
    except (ConnectionError, OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        failed = "a local Ray cannot be started"
        if target != "local":
            failed = f"the Ray cluster at {target} cannot be reached"
        raise ClusterProblem(f"{failed}: {_first_line(error)}") from error


def _check_room(workers: int, resources: Resources, *, own: bool) -> None:
    """Refuse what can never start: Ray itself would wait for it in silence."""
    if resources.gpus > 1 and not float(resources.gpus).is_integer():
        raise ClusterProblem(
            f"execution.gpus_per_worker: expected a fraction up to 1 or a whole number, got"
            f" {resources.gpus:g}"
        )
    nodes = list(living_nodes().values())
    room = sum(workers_on(node, resources) for node in nodes)
    if room >= workers:
        return
    total = ", ".join(
        f"{sum(node.get(name, 0) for node in nodes):g} {name}" for name in ("CPU", "GPU")
    )
    sentence = (
        f"expected room for {workers} workers of {resources} each, but the {_nodes(nodes)} of this"
        f" cluster ({total}) hold {room}"
    )
    if own or room == 0:
        raise ClusterProblem(f"{sentence}; use fewer --workers, or another --gpus-per-worker")
    _log.warning("%s; the others start as soon as the cluster grows", sentence)


def living_nodes() -> dict[str, Mapping[str, float]]:
    """The resources of every machine that is up, by node id."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return {node["NodeID"]: node["Resources"] for node in nodes if node["Alive"]}


def workers_on(node: Mapping[str, float], resources: Resources) -> int:
    """How many workers fit on a machine; a fraction of a GPU must lie on one GPU."""
    if not resources.gpus:
        return int(node.get("CPU", 0) // resources.threads)
    gpus = node.get("GPU", 0)
    if resources.gpus >= 1:
        return int(gpus // resources.gpus)
    return int(gpus) * int(1 / resources.gpus + 1e-9)


def _nodes(nodes: Sequence[object]) -> str:
    return "1 machine" if len(nodes) == 1 else f"{len(nodes)} machines"


def _temp_folder() -> str:
    base = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="dh", dir=base if len(base) <= _LONGEST_TEMP_FOLDER else "/tmp")


def _import_path() -> dict[str, str]:
    found = os.environ.get("PYTHONPATH")
    root = str(PROJECT_ROOT)
    return {"PYTHONPATH": f"{root}{os.pathsep}{found}" if found else root}


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
