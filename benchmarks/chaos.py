"""Faults against real runs on real Ray: nothing lost, nothing twice, nothing wrong, no hang.

`python -m benchmarks.chaos` repeats rounds until at least 100 faults were injected: kill -9 of
workers, of machines and of drivers; shards that exit, segfault, raise and hang; a truncated tar; a
full disk; a failing S3; orphans that write on. Rounds write to a small disk and to S3 in turn.
"""

from __future__ import annotations

import logging
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import typer
from rich.console import Console

from benchmarks.chaos_cluster import BUCKET, MACHINES, machines, object_store, small_disk
from benchmarks.chaos_round import IN_FLIGHT, Outcome, Round, Setting
from benchmarks.chaos_worker import ChaosWorker, Order, sleep_of
from benchmarks.faulty_s3 import random_faults
from benchmarks.machine import describe
from cluster.runner import run
from lib.files.images import encode
from lib.files.tar_writer import write_tar
from lib.ledger.commit_record import read_commit
from lib.ledger.run_folder import RunFolder

FAULTS = (
    "worker killed",
    "worker killed",
    "machine lost",
    "driver killed",
    "orphan writing",
    "disk full",
    "store down",
)
"""Of a round, where they apply; poison and the truncated tar come with its shards."""
POISON = ("exit-0", "segfault-0", "raise-0", "hang-0", "cut-0")
_SIDE = 64
_WORKERS_EACH = 2
_STORE_RATE = 0.02
"""Of all requests of a round on S3 are spoilt."""


def rounds(
    *,
    faults: int,
    good: int,
    images: int,
    image_s: float,
    seed: int,
    limit_s: float,
    kinds: Sequence[str] = FAULTS,
    places: Sequence[str] = ("disk", "s3"),
) -> Iterator[tuple[str, Outcome]]:
    """Where a round wrote and what came of it, until so many faults were injected."""
    chance = random.Random(seed)
    root = Path(tempfile.mkdtemp(prefix="chaos-"))
    urls = _make_shards(root / "in", good, images)
    with object_store() as s3, machines(_WORKERS_EACH) as cluster:
        order = Order(
            shards=urls,
            folder="",
            notes="",
            address=cluster.address,
            workers=_WORKERS_EACH * MACHINES,
            image_s=image_s,
            side=_SIDE,
            max_attempts=2,
            stall_timeout_s=20.0,
        )
        reference = _undisturbed(replace(order, shards=urls[:good], image_s=0.0), root / "plain")
        injected = number = 0
        while injected < faults:
            place, here = places[number % len(places)], root / f"round-{number}"
            (here / "notes").mkdir(parents=True)
            with small_disk(here / "disk") as mounted:
                on_s3 = place == "s3"
                folder = f"{BUCKET}/round-{number}" if on_s3 else str(here / "disk" / "run")
                setting = Setting(
                    order=replace(order, folder=folder, notes=str(here / "notes")),
                    poison=frozenset(POISON),
                    reference=reference,
                    images=images,
                    root=here,
                    disk=here / "disk" if mounted and not on_s3 else None,
                    s3=s3 if on_s3 else None,
                    limit_s=limit_s,
                )
                s3.plan = random_faults(seed + number, _STORE_RATE) if on_s3 else None
                outcome = Round(setting, cluster, chance).run(kinds)
            injected += outcome.faults.total()
            number += 1
            yield place, outcome
    shutil.rmtree(root, ignore_errors=True)


def _make_shards(folder: Path, good: int, images: int) -> tuple[str, ...]:
    """URLs of good shards, then of one of each poison, the last of which is cut."""
    folder.mkdir()
    draw = np.random.default_rng(0)
    urls = []
    for name in (*(f"good-{i:03d}" for i in range(good)), *POISON):
        pixels_BHWC = draw.integers(0, 255, (images, _SIDE, _SIDE, 3), dtype=np.uint8)
        data = write_tar(
            [(f"{i:03d}.png", encode(p, "png", 100)) for i, p in enumerate(pixels_BHWC)]
        )
        path = folder / f"{name}.tar"
        path.write_bytes(data[: len(data) * 5 // 8] if name.startswith("cut") else data)
        urls.append(str(path))
    return tuple(urls)


def _undisturbed(order: Order, root: Path) -> dict[str, str]:
    """Shard -> SHA-256 of the images that a run without faults makes, in this process."""
    (root / "notes").mkdir(parents=True)
    order = replace(order, folder=str(root / "run"), notes=str(root / "notes"))
    config = order.config
    local = config.execution.model_copy(update={"engine": "local", "workers": 1})
    outcome = run(
        config.model_copy(update={"execution": local}),
        factory=partial(ChaosWorker, sleep_of(order), order.notes),
        console=Console(quiet=True),
    )
    if outcome.exit_code:
        raise SystemExit(f"the undisturbed run failed: {outcome.sentence}")
    folder = RunFolder(order.folder)
    return {n: read_commit(folder.commit_url(n)).image_sha256 for n in sorted(folder.committed())}


def main(
    faults: int = 100,
    good: int = 40,
    images: int = 16,
    image_s: float = 0.05,
    seed: int = 0,
    limit_s: float = 400.0,
) -> None:
    """Print a row a round, and what it adds up to."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # every request of the S3 server
    print(describe())
    print(
        f"{MACHINES} machines of {_WORKERS_EACH} workers, each with at most {IN_FLIGHT} shards in"
        f" flight; {good} good shards of {images} images at {image_s:g} s, {len(POISON)} bad ones"
    )
    print("place  drivers  seconds  samples  lost  twice  wrong  hung  redone / in flight")
    total: Counter[str] = Counter()
    outcomes = []
    for place, o in rounds(
        faults=faults, good=good, images=images, image_s=image_s, seed=seed, limit_s=limit_s
    ):
        total += o.faults
        outcomes.append(o)
        print(
            f"{place:5}  {o.drivers:7}  {o.seconds:7.0f}  {o.samples:7}  {o.lost:4}  {o.twice:5}"
            f"  {o.wrong:5}  {'yes' if o.hung else 'no':>4}  {o.redone} / {o.allowed}",
            flush=True,
        )
        for problem in o.problems:
            print(f"       {problem}", flush=True)
    print(f"\n{total.total()} faults")
    for fault, count in sorted(total.items()):
        print(f"{count:5}  {fault}")
    print(
        f"{sum(o.samples for o in outcomes)} samples: {sum(o.lost for o in outcomes)} lost,"
        f" {sum(o.twice for o in outcomes)} twice; {sum(o.wrong for o in outcomes)} wrong commits;"
        f" {sum(o.hung for o in outcomes)} rounds hung; {sum(o.redone for o in outcomes)} shards"
        f" redone of {sum(o.allowed for o in outcomes)} in flight where faults struck"
    )


if __name__ == "__main__":
    typer.run(main)
