"""What a probe reads off this machine: seconds of its threads, its device and its memory."""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from lib.files.images import ImageError, decode
from lib.files.samples import RawSample, SampleError, image_member
from pipelines.config import RunConfig
from pipelines.side_files import side_files

_CPUS = Path("/proc/cpuinfo")


class ThreadSeconds:
    """CPU seconds of the threads that this process begins from now on."""

    def __init__(self) -> None:
        self._others = {thread.ident for thread in threading.enumerate()}

    def read(self) -> float:
        """Of those that are alive: the threads of a pool stay until it is closed."""
        return sum(
            time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            for thread in threading.enumerate()
            if thread.ident is not None and thread.ident not in self._others
        )


def decoding_s(config: RunConfig, samples: Sequence[RawSample], image_size: int) -> float:
    """CPU seconds of decoding the images of these samples, in this thread."""
    claimed = side_files(config)
    started = time.thread_time()
    for sample in samples:
        try:
            decode(
                sample.files[image_member(sample, claimed)],
                size=image_size,
                fit=config.input.fit,
                min_side=config.input.min_side,
                max_pixels=config.input.max_pixels,
            )
        except (SampleError, ImageError):
            continue  # what a run rejects has cost it as much
    return time.thread_time() - started


def device_name(device: torch.device, cpu_threads: int) -> str:
    """Such as `NVIDIA H100 80GB HBM3`, or the processor and its compute threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    lines = _CPUS.read_text().splitlines() if _CPUS.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    threads = "1 thread" if cpu_threads == 1 else f"{cpu_threads} threads"
    return f"{names[0] if names else platform.machine()}, {threads}"


def device_peak_bytes(device: torch.device) -> int | None:
    """The most that torch has taken of the device, its unused cache counted; None for a CPU."""
    return int(torch.cuda.max_memory_reserved(device)) if device.type == "cuda" else None
