"""Pictures, shards, configs and runs for the tests of whole shards; made with the standard library,
numpy and Pillow, so that nothing of the project checks itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from lib.ledger.run_folder import RunFolder
from lib.receipts import ShardReport, ShardTask
from pipelines.config import RunConfig
from pipelines.run_claim import run_claim

Members = list[tuple[str, bytes]]
ROOT = Path(__file__).resolve().parent.parent
HASHED = ("commit", "directions", "errors", "images", "manifest")
"""The folders of a run whose bytes depend on config and inputs alone."""

LEARNED = ("merged", "statistics")
"""Likewise, of a run that learns from all images."""


def picture(seed: int, width: int = 16, height: int = 16) -> Image.Image:
    """A smooth colour picture without black or white, different for every seed."""
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def mask(
    width: int = 16, height: int = 16, box: tuple[int, int, int, int] = (0, 0, 8, 16)
) -> bytes:
    """A grey PNG, white within `box` (left, top, right, bottom in pixels)."""
    image = Image.new("L", (width, height), 0)
    image.paste(255, box)
    return encoded(image)


def sample(key: str, seed: int, *, masked: bool = False, **size: int) -> Members:
    """`key.png`, and `key.part.png` with a mask of its left half where asked."""
    members = [(f"{key}.png", encoded(picture(seed, **size)))]
    if masked:
        members.append((f"{key}.part.png", mask()))
    return members


def samples(count: int, *, first: int = 0, masked: bool = False) -> Members:
    return [
        member
        for number in range(first, first + count)
        for member in sample(f"picture-{number:03d}", number, masked=masked)
    ]


def tar_bytes(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def write_shards(folder: Path, shards: int, pictures: int) -> str:
    """`in-0.tar`, `in-1.tar`, ... of different pictures; returns the pattern that names them."""
    for shard in range(shards):
        write_tar(folder / f"in-{shard}.tar", samples(pictures, first=100 * shard))
    return str(folder / "in-*.tar")


def config(
    checkpoint: Path | str, shards: Path | str, folder: Path, **sections: Mapping[str, Any]
) -> RunConfig:
    """A config with few steps; `sections` are laid over it, key by key."""
    values: dict[str, dict[str, Any]] = {
        "input": {"shards": [str(shards)]},
        "model": {"checkpoint": str(checkpoint)},
        "grid": {"num_steps": 6, "spacing": "trailing"},
        "invert": {"refinements": 0, "batch_size": 4},
        "segment": {"regions": {"left": {"box": [0, 0, 0.5, 1]}}},
        "discover": {"method": "jacobian", "directions": 1, "max_rounds": 3, "chunk": 4},
        "edit": {"strengths": [-0.1, 0.1], "batch_size": 4},
        "output": {"folder": str(folder)},
        "execution": {"engine": "local", "device": "cpu"},
    }
    for name, section in sections.items():
        if section.get("method", "jacobian") != "jacobian":
            values[name] = {}
        values[name] = values.get(name, {}) | dict(section)
    return RunConfig.model_validate(values)


def write_config(path: Path, made: RunConfig) -> Path:
    path.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    return path


def claimed(made: RunConfig, shards: Mapping[str, str]) -> tuple[RunFolder, str]:
    """The run's folder, claimed as the driver does, and its fingerprint."""
    folder = RunFolder(made.output.folder)
    record = run_claim(made)
    folder.open_run(record)
    folder.add_inputs(shards)
    return folder, str(record["fingerprint"])


def work(made: RunConfig, paths: Sequence[Path]) -> tuple[RunFolder, list[ShardReport]]:
    """Bring shards to their end with one worker in this process, without the cluster layer."""
    from pipelines.worker import ShardWorker

    folder, print_ = claimed(made, {path.stem: str(path) for path in paths})
    worker = ShardWorker(made.model_dump_json(), print_)
    return folder, [worker.run(ShardTask(path.stem, str(path), 1)) for path in paths]


def command(*arguments: object) -> list[str]:
    """The command line of the project, run by this Python."""
    return [sys.executable, "-m", "cluster", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | more


def deltah(
    *arguments: object, timeout_s: float = 120, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env=environment(),
        check=False,
        **options,
    )


def files(folder: Path) -> set[str]:
    """Every file below `folder`, relative to it."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def hashes(folder: Path) -> dict[str, str]:
    """Path -> sha256 of all that must not depend on how the work was done."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in sorted(files(folder))
        if name.split("/")[0] in HASHED + LEARNED
    }


def members(tar: Path) -> dict[str, bytes]:
    """The contents of a tar, by the standard library."""
    with tarfile.open(tar) as archive:
        found = {}
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            found[entry.name] = file.read()
    return found


def images(folder: Path) -> dict[str, np.ndarray]:
    """All edited images of a run by member name, int16 (H, W, 3)."""
    return {
        name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)
        for tar in sorted((folder / "images").glob("*.tar"))
        for name, data in members(tar).items()
        if name.endswith((".png", ".jpg", ".webp")) and ".mask." not in name
    }


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What the drivers of a run wrote of one kind."""
    found = [
        json.loads(line)
        for path in sorted((folder / "events").glob("*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    return [event for event in found if event["event"] == kind]
