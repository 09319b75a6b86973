"""How good `deltah plan --probe` is: what it foretells, over what the run then took and left.

`python -m benchmarks.planning [--probe 8] [--shards 4]` makes shards of eight faces and, for a few
configs on them, plans with a probe in one process and runs in another, with one local worker. Wall
time is from the worker's start to the last commit, model seconds are those of the receipts, bytes
those of the files. CPU seconds, of the whole process with its start, tell how good the probe is
where other work shares the machine.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks.machine import describe
from lib.demo.shards import write_shards

FACES_A_SHARD, SEED = 8, 9_000
ROOT = Path(__file__).resolve().parent.parent
CONFIGS: dict[str, dict[str, Any]] = {
    "edits (preset demo)": {"preset": "demo"},
    "directions (preset demo-library)": {"preset": "demo-library"},
    "sdedit, two timesteps": {
        "preset": "demo",
        "discover": {"method": "none"},
        "edit": {"method": "sdedit", "sdedit": {"timesteps": [300, 560]}},
        "segment": {"regions": {}},
    },
    "pca at one timestep": {
        "preset": "demo",
        "pipeline": "direction_library",
        "discover": {"method": "pca", "timesteps": [368]},
        "evaluate": {"attributes": None},
    },
    "latents in float32": {
        "preset": "demo",
        "pipeline": "store_latents",
        "output": {"latents": "float32"},
        "evaluate": {"attributes": None},
    },
    "regions (preset demo-regions)": {"preset": "demo-regions"},
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Foretold or found."""

    model_s: float
    wall_s: float
    cpu_s: float
    bytes_: int


def write_config(name: str, values: dict[str, Any], folder: Path, faces: list[str]) -> Path:
    """One of CONFIGS on these faces, as a file."""
    output = values.get("output", {}) | {"folder": str(folder / name / "run")}
    execution = {"engine": "local", "workers": 1, "device": "auto"}
    made = values | {"input": {"shards": faces}, "output": output, "execution": execution}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(made))
    return path


def deltah(*arguments: object) -> str:
    """Run the command line in a process of its own; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster", *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    return done.stdout


def foretold(config: Path, probe: int) -> Figures:
    """By a probe of so many images."""
    plan = json.loads(deltah("plan", config, "--probe", probe, "--at", 1, "--json"))
    (at,) = plan["estimate"]["at"]
    images, probed = plan["images_to_do"], plan["probe"]
    return Figures(
        images * probed["model_s"],
        at["wall_s"],
        images * probed["cpu_s"] + probed["start_cpu_s"],
        sum(plan["output"].values()),
    )


def found(config: Path, run_folder: Path) -> Figures:
    """By the run."""
    before_s = _children_s()
    deltah("run", config)
    cpu_s = _children_s() - before_s
    (log,) = (run_folder / "events").iterdir()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    done = [event for event in events if event["event"] == "shard_done"]
    begun, ended = (datetime.fromisoformat(event["time"]) for event in (events[0], done[-1]))
    return Figures(
        sum(event["report"]["model_s"] for event in done),
        (ended - begun).total_seconds(),
        cpu_s,
        sum(
            path.stat().st_size
            for name in ("images", "directions", "statistics", "latents", "commit", "manifest")
            for path in (run_folder / name).glob("*")
        ),
    )


def _children_s() -> float:
    """CPU seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(
    probe: Annotated[int, typer.Option(help="Images of a probe.")] = 8,
    shards: Annotated[int, typer.Option(help="Of eight faces each.")] = 4,
) -> None:
    """Print the table."""
    print(describe())
    print(f"{shards} shards of {FACES_A_SHARD} faces, one local worker, probes of {probe} images")
    print("foretold / found = ratio")
    print(f"{'config':34}{'model s':>26}{'wall s':>26}{'CPU s':>26}{'kB':>28}")
    with tempfile.TemporaryDirectory(prefix="deltah-planning-") as root:
        faces = write_shards(
            os.path.join(root, "faces"), shards=shards, faces_per_shard=FACES_A_SHARD, seed=SEED
        )
        for number, (label, values) in enumerate(CONFIGS.items()):
            name = f"config-{number}"
            config = write_config(name, values, Path(root), faces)
            before = foretold(config, probe)
            after = found(config, Path(root) / name / "run")
            print(
                f"{label:34}{_ratio(before.model_s, after.model_s):>26}"
                f"{_ratio(before.wall_s, after.wall_s):>26}"
                f"{_ratio(before.cpu_s, after.cpu_s):>26}"
                f"{_ratio(before.bytes_ / 1000, after.bytes_ / 1000):>28}",
                flush=True,
            )


def _ratio(before: float, after: float) -> str:
    return f"{before:,.1f} / {after:,.1f} = {before / after:.2f}"


if __name__ == "__main__":
    typer.run(main)
