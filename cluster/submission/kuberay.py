"""A run as a RayJob of KubeRay: one manifest that holds the config and needs nothing beside it but
an image, and a secret where the object store wants one.
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from importlib import metadata

from cluster.installation import OBJECT_STORE_BYTES
from cluster.submission.ray_job import STOP_WAIT
from cluster.submission.rendering import render
from cluster.submission.travelling_config import config_text
from lib.problems import ConfigProblem
from pipelines.config import RunConfig

IMAGE_USER = 1000
"""Of the Dockerfile."""
LONGEST_NAME = 40
"""Characters; KubeRay takes 47 and we append a suffix to some."""

_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_CONFIG_FOLDER, _CACHE_FOLDER = "/etc/deltah", "/cache"
_SHARED_MEMORY = "256Mi"
_HEAD_MEMORY = "8Gi"
_GRACE_S = 30
"""Seconds that Kubernetes leaves a pod that must go: its own default."""
_GPU_WORKER_CPUS, _GPU_WORKER_MEMORY, _CPU_WORKER_MEMORY = 4, "32Gi", "8Gi"


@dataclass(frozen=True, slots=True)
class Pods:
    """What the manifest asks Kubernetes for."""

    image: str
    name: str
    namespace: str | None
    service_account: str | None
    secret: str | None
    """Its keys become the environment of all pods."""
    min_workers: int
    """Fewer than the config's workers: Ray's autoscaler adds pods up to those."""
    drain_s: int
    retry_quarantined: bool


def rayjob_manifest(config: RunConfig, pods: Pods) -> str:
    """YAML of a ConfigMap and a RayJob; `config` comes from `travelling`.

    Raises:
        ConfigProblem: a name is none for Kubernetes, or there are more workers at first than later.

    """
    _check_names(pods)
    execution = config.execution
    if not 1 <= pods.min_workers <= execution.workers:
        raise ConfigProblem(
            f"--min-workers: expected 1 to {execution.workers}, the number of workers, got"
            f" {pods.min_workers}"
        )
    share = execution.gpus_per_worker
    gpus = math.ceil(share)
    a_pod = int(1 / share + 1e-9) if 0 < share < 1 else 1
    arguments = ["python", "-m", "cluster", "run", f"{_CONFIG_FOLDER}/run.yaml"]
    if pods.retry_quarantined:
        arguments.append("--retry-quarantined")
    threads = config.model.cpu_threads
    return render(
        "rayjob.yaml.j2",
        {
            "name": pods.name,
            "namespace": pods.namespace,
            "service_account": pods.service_account,
            "secret": pods.secret,
            "config": config_text(config),
            "entrypoint": shlex.join(arguments),
            "ray_version": metadata.version("ray"),
            "image": pods.image,
            "user": IMAGE_USER,
            "stop_wait": STOP_WAIT,
            "drain_s": pods.drain_s,
            "min_pods": math.ceil(pods.min_workers / a_pod),
            "pods": math.ceil(execution.workers / a_pod),
            "workers_a_pod": "one worker" if a_pod == 1 else f"{a_pod} workers",
            "gpus": gpus,
            "threads": threads,
            "cpus": _GPU_WORKER_CPUS if gpus else threads,
            "memory": _GPU_WORKER_MEMORY if gpus else _CPU_WORKER_MEMORY,
            "head_memory": _HEAD_MEMORY,
            "config_folder": _CONFIG_FOLDER,
            "cache_folder": _CACHE_FOLDER,
            "object_store_bytes": OBJECT_STORE_BYTES,
            "shared_memory": _SHARED_MEMORY,
            "grace_s": _GRACE_S,
        },
    )


def _check_names(pods: Pods) -> None:
    for option, name in (
        ("--name", pods.name),
        ("--namespace", pods.namespace),
        ("--service-account", pods.service_account),
        ("--env-from-secret", pods.secret),
    ):
        if name is not None and (len(name) > LONGEST_NAME or not _NAME.fullmatch(name)):
            raise ConfigProblem(
                f"{option}: expected at most {LONGEST_NAME} small letters, digits and dashes, a"
                f" letter first, got {name!r}"
            )
