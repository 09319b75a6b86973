"""What chaos happens to: two machines of a real Ray on this one, their processes, a small disk, and
an S3 server that can fail.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec

from benchmarks.faulty_s3 import FaultyS3, faulty_s3

MACHINES = 2
_STORE_BYTES = 100_000_000
_DISK_BYTES = 60_000_000
_ROOT = Path(__file__).resolve().parents[1]
BUCKET = "s3://deltah-chaos"


class Machines:
    """A head without room for work and two machines that hold `workers_each` workers each."""

    def __init__(self, cluster: Any, workers_each: int) -> None:
        self._cluster = cluster
        self._options = {
            "num_cpus": workers_each,
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
        self._nodes = [cluster.add_node(**self._options) for _ in range(MACHINES)]
        self.address = str(cluster.address)

    def lose(self, chance: random.Random) -> None:
        """kill -9 of a machine's raylet, with all that it started; another machine takes its place
        at once, as in a cluster that is kept at its size.
        """
        node = self._nodes.pop(chance.randrange(len(self._nodes)))
        for process in node.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._cluster.add_node(**self._options))


@contextmanager
def machines(workers_each: int) -> Iterator[Machines]:
    """In a temp folder of its own, which Ray's sockets want short."""
    folder = tempfile.mkdtemp(prefix="dhc", dir="/tmp")
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = folder
    os.environ.pop("RAY_ADDRESS", None)
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        yield Machines(cluster, workers_each)
    finally:
        cluster.shutdown()
        os.environ.pop("RAY_TMPDIR")
        if before is not None:
            os.environ["RAY_TMPDIR"] = before
        shutil.rmtree(folder, ignore_errors=True)


def worker_pids(notes: Path) -> list[int]:
    """Processes that are Ray workers of ours: those that began a shard of this run and live."""
    noted = {int(line) for path in notes.iterdir() for line in path.read_text().splitlines()}
    return sorted(pid for pid in noted if b"ray::" in _title(pid))


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@contextmanager
def small_disk(place: Path) -> Iterator[bool]:
    """A file system of its own that can be filled up; False where none may be mounted."""
    place.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and shutil.which("mount") is not None
    mounted = mounted and not subprocess.run(options, capture_output=True, check=False).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def object_store() -> Iterator[FaultyS3]:
    """Every process that is started from here on takes s3:// for this server, and finds this
    project.
    """
    with faulty_s3() as s3:
        given = {
            "FSSPEC_S3_ENDPOINT_URL": s3.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(_ROOT),
        }
        before = {name: os.environ.get(name) for name in given}
        os.environ.update(given)
        fsspec.config.conf["s3"] = {"endpoint_url": s3.url}
        fsspec.filesystem("s3").mkdir(BUCKET)
        try:
            yield s3
        finally:
            del fsspec.config.conf["s3"]
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value
