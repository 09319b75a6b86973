"""How many requests a run makes of S3: counted at a real server, by what they ask for.

`python -m benchmarks.requests [--shards 2 6]` edits shards of one face with the embedded model,
input and output in the local S3 server of benchmarks.faulty_s3, once with each number of shards.
What is the same in both is asked for once a run, the difference by every shard. It then looks at
the finished run as `run`, `status` and `verify` do.
"""

from __future__ import annotations

import argparse
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

import fsspec
from rich.console import Console

from benchmarks.faulty_s3 import FaultyS3, faulty_s3
from benchmarks.machine import describe
from lib.files import storage
from pipelines.config import RunConfig
from pipelines.presets import demo

BUCKET = "counted"
Counts = Mapping[tuple[str, str], int]
"""(operation, what it asks for) -> requests."""


def small_run(shards: int, root: str) -> RunConfig:
    """One face a shard, one region, few steps, below the URL `root`."""
    values = demo().model_dump(mode="json")
    values["input"]["shards"] = [f"{root}/in/faces-{{00000..{shards - 1:05d}}}.tar"]
    values["grid"]["num_steps"] = 8
    values["invert"]["refinements"] = 0
    values["segment"]["regions"] = {"eyes": {"file": "eyes.png"}}
    values["discover"]["max_rounds"] = 2
    values["evaluate"]["attributes"] = None
    values["output"]["folder"] = f"{root}/run"
    values["execution"] = {"engine": "local", "device": "cpu"}
    return RunConfig.model_validate(values)


@contextmanager
def counted_s3() -> Iterator[FaultyS3]:
    """The server, with a bucket, set up as this process's S3."""
    before = fsspec.config.conf.get("s3", {})
    with faulty_s3() as s3:
        fsspec.config.conf["s3"] = {"endpoint_url": s3.url, "key": "any", "secret": "any"}
        fsspec.filesystem("s3").mkdir(BUCKET)
        try:
            yield s3
        finally:
            fsspec.config.conf["s3"] = before


def counted(s3: FaultyS3, work: Callable[[], object]) -> Counts:
    """What `work` asks for."""
    start = len(s3.seen)
    work()
    return Counter((request.operation, _subject(request.path)) for request, _ in s3.seen[start:])


def _subject(path: str) -> str:
    """The folder or file below the run, or `input`."""
    where, _, query = path.partition("?")
    if "prefix=" in query:
        where = query.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
        where = f"{BUCKET}/{where}"
    _, _, half, *inside = where.strip("/").split("/")
    if half == "in":
        return "input"
    return inside[0] if inside else "run folder"


def looks(s3: FaultyS3, config: RunConfig) -> dict[str, Counts]:
    """Of the first run of `config`, and of looking at it when it is done."""
    from cluster.runner import run
    from cluster.views.status import show_status
    from lib.ledger.run_folder import RunFolder
    from lib.ledger.verification import verify

    folder = RunFolder(config.output.folder)
    quiet = Console(file=io.StringIO())
    with redirect_stdout(io.StringIO()):
        return {
            "run": counted(s3, lambda: run(config, console=quiet)),
            "run again": counted(s3, lambda: run(config, console=quiet)),
            "status": counted(s3, lambda: show_status(folder.root)),
            "verify": counted(s3, lambda: verify(folder)),
            "verify --deep": counted(s3, lambda: verify(folder, deep=True)),
        }


def measured(s3: FaultyS3, sizes: tuple[int, int]) -> tuple[dict[str, Counts], dict[str, Counts]]:
    """For a run of each number of shards."""
    from lib.demo.shards import write_shards

    found = []
    for shards in sizes:
        root = f"s3://{BUCKET}/{shards}"
        write_shards(storage.join(root, "in"), shards=shards, faces_per_shard=1, seed=0)
        found.append(looks(s3, small_run(shards, root)))
    return found[0], found[1]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, nargs=2, default=(2, 6))
    few, many = parser.parse_args().shards
    os.environ["OMP_NUM_THREADS"] = "1"
    with counted_s3() as s3:
        small, large = measured(s3, (few, many))
    print(describe())
    print(f"S3 requests of a run with {few} and with {many} shards of one face")
    print(f"{'command':<15}{'operation':<15}{'of':<14}{few:>6}{many:>6}  a shard  once")
    for command in large:
        for key in sorted(small[command].keys() | large[command].keys()):
            low, high = small[command].get(key, 0), large[command].get(key, 0)
            each = (high - low) / (many - few)
            once = low - each * few
            operation, subject = key
            print(f"{command:<15}{operation:<15}{subject:<14}{low:>6}{high:>6}{each:>9g}{once:>6g}")


if __name__ == "__main__":
    main()
