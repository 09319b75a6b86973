"""The line above every table: what ran, where."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from lib.provenance import git_commit


def describe() -> str:
    """Processor, cores, threads, torch, commit."""
    cpus = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    processor = cpus[0] if cpus else "unknown CPU"
    return (
        f"{platform.machine()} {processor}, {os.cpu_count()} cores, {device};"
        f" torch {torch.__version__}, {torch.get_num_threads()} threads; commit {git_commit()}"
    )
