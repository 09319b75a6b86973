"""The report of a run with 100,000 edits: seconds, peak memory, and the bytes of its first page.

`python -m benchmarks.report [--edits 100000] [--shards 200] [--side 64]` makes a synthetic run in
a temporary folder (real commits; pictures of the first sample of each shard), builds the report in
a process of its own and opens it in Chromium, if there is one.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from benchmarks.browser import Browser, find_browser
from benchmarks.machine import describe
from lib.files import schemas
from lib.ledger.commit import ShardResult, commit
from lib.ledger.finalize import finalize
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record
from pipelines.config import RunConfig

REGIONS = ("eyes", "mouth", "hair", "skin", "background")
STRENGTHS = (-0.2, -0.1, 0.1, 0.2)
EDITS_PER_SAMPLE = len(REGIONS) * len(STRENGTHS)

_BUILD = (
    "import sys, time; start = time.perf_counter();"
    "from pipelines.report.page import write_report; write_report(sys.argv[1]);"
    "from lib.process_memory import peak_bytes;"
    "print(time.perf_counter() - start, peak_bytes())"
)


def make_run(folder: RunFolder, edits: int, shards: int, side: int) -> None:
    """Commits of `shards` shards with about `edits` edits in all; random measurements."""
    config = RunConfig.model_validate(
        {
            "input": {"shards": ["in/{00000..99999}.tar"]},
            "segment": {"regions": {name: {"box": (0.1, 0.1, 0.6, 0.6)} for name in REGIONS}},
            "edit": {"strengths": STRENGTHS},
            "output": {"folder": folder.root, "layout": "pairs"},
        }
    )
    folder.open_run(run_record({"synthetic": 1}, config.model_dump(mode="json")))
    fingerprint = str(folder.read_run()["fingerprint"])
    folder.add_inputs({f"{n:05d}": f"in/{n:05d}.tar" for n in range(shards)})
    samples = round(edits / EDITS_PER_SAMPLE / shards)
    generator = np.random.default_rng(0)
    pictures = _pictures(side, generator)
    for shard in (f"{number:05d}" for number in range(shards)):
        images = _tar(shard, pictures)
        result = ShardResult(
            shard=shard, n_in=samples, input_size=1000, input_sha256="0" * 64,
            rows=_rows(shard, samples, generator), images=images, directions=None, failures=[],
        )  # fmt: skip
        commit(folder, result, fingerprint)
    finalize(folder)


def _rows(shard: str, samples: int, generator: np.random.Generator) -> pa.Table:
    count = samples * EDITS_PER_SAMPLE
    index_N = np.repeat(np.arange(samples), EDITS_PER_SAMPLE)
    edit_N = np.tile(np.arange(EDITS_PER_SAMPLE), samples)
    regions = [REGIONS[edit // len(STRENGTHS)] for edit in edit_N]
    strength_N = np.array([STRENGTHS[edit % len(STRENGTHS)] for edit in edit_N], np.float32)
    roir_N = generator.lognormal(-2, 0.6, count).astype(np.float32)
    columns: dict[str, object] = {}
    for field in schemas.EDITS:
        if pa.types.is_floating(field.type):
            columns[field.name] = generator.lognormal(-2, 0.6, count).astype(np.float32)
        elif pa.types.is_integer(field.type):
            columns[field.name] = np.zeros(count, np.int32)
        elif pa.types.is_list(field.type):
            columns[field.name] = [[]] * count
        else:
            columns[field.name] = ["x"] * count
    stems = [f"{shard}-{i:06d}-{e:03d}" for i, e in zip(index_N, edit_N, strict=True)]
    columns |= {
        "shard": [shard] * count, "index": index_N.astype(np.int32),
        "edit": edit_N.astype(np.int32), "region": regions, "strength": strength_N,
        "key": [f"photograph-{shard}-{i}" for i in index_N], "noise": [None] * count,
        "member": [f"{stem}.edited.webp" for stem in stems],
        "direction": [f"{REGIONS.index(region):016x}" for region in regions],
        "roir": roir_N, "filtered": [None if roir < 0.3 else "roir < 0.3" for roir in roir_N],
    }  # fmt: skip
    return pa.table({name: columns[name] for name in schemas.EDITS.names}, schema=schemas.EDITS)


def _pictures(side: int, generator: np.random.Generator) -> dict[str, bytes]:
    """Ends of names -> files, of one sample; smooth as photographs are."""
    found = {}
    for edit in range(EDITS_PER_SAMPLE):
        small = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
        for part in ("edited", "original"):
            found[f"{edit:03d}.{part}.webp"] = _encoded(picture, "WEBP")
        mask = Image.fromarray(np.tri(side, dtype=np.uint8) * 255)
        found[f"{edit:03d}.mask.png"] = _encoded(mask, "PNG")
    return found


def _encoded(picture: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def _tar(shard: str, pictures: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in pictures.items():
            entry = tarfile.TarInfo(f"{shard}-000000-{name}")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def build(root: str) -> tuple[float, int]:
    """(seconds, peak resident bytes) of building the report of the run at `root`, with a process
    of its own.
    """
    ran = subprocess.run(
        [sys.executable, "-c", _BUILD, root], capture_output=True, text=True, check=True
    )
    seconds, peak = ran.stdout.split()
    return float(seconds), int(peak)


def first_page_bytes(index: Path) -> int:
    """Of index.html and all that a browser of 1400 x 1000 pixels loads before anything is done;
    without a browser of what index.html names.
    """
    if find_browser() is None:
        names = set(re.findall(r'src="([^"]+)"', index.read_text()))
        return sum((index.parent / name).stat().st_size for name in names) + index.stat().st_size
    with Browser() as browser:
        browser.open(index.as_uri())
        time.sleep(2)
        browser.value("1")
        urls = {url for url in browser.requests if url.startswith("file:")}
    return sum(Path(url.removeprefix("file://")).stat().st_size for url in urls)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--side", type=int, default=64)
    options = parser.parse_args()
    print(describe())
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(f"{temporary}/run")
        make_run(folder, options.edits, options.shards, options.side)
        seconds, peak = build(folder.root)
        report = Path(folder.root) / "report"
        files = [path for path in report.rglob("*") if path.is_file()]
        total = sum(path.stat().st_size for path in files)
        print(f"edits                {options.edits:>12,}")
        print(f"shards               {options.shards:>12,}")
        print(f"seconds to build     {seconds:>12.1f}")
        print(f"peak memory, MB      {peak / 1e6:>12.0f}")
        print(f"first page, MB       {first_page_bytes(report / 'index.html') / 1e6:>12.2f}")
        print(f"whole report, MB     {total / 1e6:>12.1f}")
        print(f"files                {len(files):>12,}")


if __name__ == "__main__":
    main()
