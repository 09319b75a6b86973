"""A run as a batch script of Slurm: one Ray cluster across nodes, or an array of parts."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from dataclasses import dataclass

from cluster.installation import OBJECT_STORE_BYTES, PROJECT_ROOT
from cluster.submission.rendering import render
from cluster.submission.travelling_config import config_text
from lib.files import storage
from lib.problems import ConfigProblem
from pipelines.config import RunConfig

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CPUS_BESIDE_A_GPU = 4
"""Of each worker: reading, decoding and encoding take a few threads for a moment."""


@dataclass(frozen=True, slots=True)
class Nodes:
    """What the script asks Slurm for."""

    name: str
    count: int
    """Nodes of one job, or tasks of the array."""
    array: bool
    drain_s: int
    retry_quarantined: bool


def batch_script(config: RunConfig, nodes: Nodes) -> str:
    """A bash script for sbatch; `config` comes from `travelling`.

    It runs in the environment of this process: its Python and this checkout must be on a file
    system that the nodes share.

    Raises:
        ConfigProblem: the workers cannot be spread evenly, or the name is none.

    """
    execution = config.execution
    if not _NAME.fullmatch(nodes.name):
        raise ConfigProblem(
            f"--name: expected letters, digits and _ . -, at most 64, got {nodes.name!r}"
        )
    if execution.workers % nodes.count:
        raise ConfigProblem(
            f"--workers: expected a multiple of the {nodes.count} nodes, got {execution.workers}"
        )
    on_each = execution.workers // nodes.count
    if nodes.array:
        engine = "ray" if on_each > 1 else "local"
        changed = execution.model_copy(update={"engine": engine, "workers": on_each})
        config = config.model_copy(update={"execution": changed})
    more = (["--address", "local"] if nodes.array and on_each > 1 else []) + (
        ["--retry-quarantined"] if nodes.retry_quarantined else []
    )
    gpus = math.ceil(on_each * execution.gpus_per_worker)
    threads = config.model.cpu_threads
    return render(
        "slurm-array.sh.j2" if nodes.array else "slurm-ray.sh.j2",
        {
            "name": nodes.name,
            "nodes": nodes.count,
            "cpus": on_each * (max(threads, _CPUS_BESIDE_A_GPU) if gpus else threads),
            "gpus": gpus,
            "threads": threads,
            "drain_s": nodes.drain_s,
            "programs": os.path.dirname(sys.executable),
            "project": PROJECT_ROOT,
            "config": config_text(config),
            "run_folder": storage.redact(config.output.folder),
            "object_store_bytes": OBJECT_STORE_BYTES,
            "more": "".join(f" {shlex.quote(each)}" for each in more),
        },
    )
