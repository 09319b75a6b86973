"""Synthetic runs to make reports of: one colour a sample, edits that brighten one half."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lib.files import schemas
from lib.ledger.commit import ShardResult, commit
from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record
from lib.receipts import Failure
from pipelines.config import RunConfig

EVIL = "<script>alert(1)</script>"
STRENGTHS = (0.2, -0.1)
REGIONS = ("eyes", "mouth")
LEFT_HALF = (0.0, 0.0, 0.5, 1.0)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def tar(members: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return file.getvalue()


def original(shard: int, index: int, side: int) -> np.ndarray:
    """One colour a sample, so that a picture in the report can be told from all others."""
    return np.full((side, side, 3), (20 + 40 * shard, 30 + 10 * index, 90), np.uint8)


def mask(side: int) -> np.ndarray:
    grey = np.zeros((side, side, 3), np.uint8)
    grey[:, : side // 2] = 255
    return grey


@dataclass
class Run:
    """A run of synthetic pictures: the edit brightens the left half by 100 * strength * 2."""

    folder: RunFolder
    inputs: Path
    layout: str = "pairs"
    side: int = 16
    keys: Mapping[tuple[int, int], str] = field(default_factory=dict)
    roir: Mapping[tuple[int, int, int], float] = field(default_factory=dict)
    """(shard, index, edit) -> ROIR, where it is not 0.25."""
    filtered: Mapping[tuple[int, int, int], str] = field(default_factory=dict)
    """(shard, index, edit) -> the rule that marks it."""
    own_columns: Mapping[str, float] = field(default_factory=dict)
    """Further columns, such as score_identity -> their value."""
    stored: bool = True
    own: bool = True

    def start(self, shards: int) -> None:
        config = RunConfig.model_validate(
            {
                "input": {"shards": [str(self.inputs / "in-*.tar")]},
                "segment": {
                    "regions": {"eyes": {"box": LEFT_HALF}, "mouth": {"file": "mouth.png"}}
                },
                "edit": {"strengths": STRENGTHS},
                "output": {"folder": self.folder.root, "layout": self.layout},
            }
        )
        self.folder.open_run(run_record({"side": self.side}, config.model_dump(mode="json")))
        urls = {f"in-{n}": str(self.inputs / f"in-{n}.tar") for n in range(shards)}
        self.folder.add_inputs(urls)

    def add(self, number: int, samples: int = 3, failed: Sequence[int] = ()) -> None:
        shard, side = f"in-{number}", self.side
        source, members, rows = {}, {}, []
        for index in range(samples):
            pixels = original(number, index, side)
            source[f"s{index}.png"] = png(pixels)
            source[f"s{index}.mouth.png"] = png(mask(side))
            edits = [(r, s) for r in REGIONS for s in STRENGTHS] if index not in failed else []
            for position, (region, strength) in enumerate(edits):
                edited = pixels.astype(int)
                edited[:, : side // 2] += int(200 * strength)
                stem = f"{shard}-{index:06d}-{position:03d}"
                pairs = self.layout == "pairs"
                member = f"{stem}.edited.png" if pairs else f"{stem}.png"
                members[member] = png(np.clip(edited, 0, 255))
                if pairs:
                    members[f"{stem}.mask.png"] = png(mask(side))
                    members[f"{stem}.original.png"] = png(pixels)
                rows.append(self.row(shard, number, index, position, member, region, strength))
        data = tar(source)
        if self.stored:
            self.inputs.mkdir(exist_ok=True)
            (self.inputs / f"{shard}.tar").write_bytes(data)
        failures = [
            Failure(shard, i, self.keys.get((number, i), f"s{i}"), "decode", "truncated", EVIL)
            for i in failed
        ]
        result = ShardResult(
            shard=shard,
            n_in=samples,
            input_size=len(data),
            input_sha256=hashlib.sha256(data).hexdigest(),
            images=tar(members) if members else b"",
            rows=pa.Table.from_pylist(rows, schema=schemas.edits_with(self.own_columns)),
            directions=self.directions(shard, number, samples, failed) if self.own else None,
            failures=failures,
        )
        assert commit(self.folder, result, str(self.folder.read_run()["fingerprint"]))

    def row(
        self, shard: str, number: int, index: int, position: int, member: str, region: str,
        strength: float,
    ) -> dict[str, object]:  # fmt: skip
        floats = [f.name for f in schemas.EDITS if f.type == pa.float32() and not f.nullable]
        return dict.fromkeys(floats, 0.125) | dict(self.own_columns) | {
            "shard": shard, "index": index, "key": self.keys.get((number, index), f"s{index}"),
            "edit": position, "image": "", "member": member, "sha256": "00", "region": region,
            "mask_sha256": "ab", "mask_area": 0.5, "rank": 0, "strength": strength,
            "added_directions": [], "added_regions": [], "added_ranks": [],
            "added_strengths": [], "noise": None, "posterior_gap": None,
            "filtered": self.filtered.get((number, index, position)),
            "direction": f"{shard}-{index}" if self.own else f"shared-{region}",
            "injection": "asymmetric", "t_high": 899, "t_low": 299,
            "in_change": abs(strength) * (1 + index), "out_change": 0.01,
            "roir": self.roir.get((number, index, position), 0.25),
            "psnr": 40.0 + index, "network_evaluations": 36.0, "source_width": self.side,
            "source_height": self.side, "crop_left": 0, "crop_top": 0, "crop_width": self.side,
            "crop_height": self.side,
        }  # fmt: skip

    def directions(
        self, shard: str, number: int, samples: int, failed: Sequence[int]
    ) -> pa.Table | None:
        rows = [
            {
                "id": f"{shard}-{index}", "vector": np.zeros(4, np.float32).tolist(), "space": "h",
                "h_layer": "after", "model": "cd", "timesteps": [368], "method": "jacobian",
                "parameters": "{}", "region": "eyes", "mask_sha256": "ab", "shard": shard,
                "index": index, "key": "k", "rank": 0, "singular_value": 3.0 + index, "gap": 0.5,
                "residual": 0.01, "angle": 0.02, "converged": index != 0, "jvp_count": 40,
                "vjp_count": 38, "sign_rule": "mean", "h_norm": 12.5, "parents": [], "label": None,
                "type": "direction", "lengths": [],
                "support": 1, "unit_strength": 1.0,
            }
            for index in range(samples)
            if index not in failed
        ]  # fmt: skip
        if not rows:
            return None
        schema = schemas.directions((1, 4, 1, 1), "float32")
        plain = pa.schema([f for f in schema if f.name != "vector"])
        vectors = pa.FixedSizeListArray.from_arrays(
            pa.array([v for row in rows for v in row["vector"]], pa.float32()), 4
        )
        vector = pa.ExtensionArray.from_storage(schema.field("vector").type, vectors)
        table = pa.Table.from_pylist(rows, schema=plain)
        return table.add_column(1, schema.field("vector"), vector).cast(schema)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(RunFolder(str(tmp_path / "run")), tmp_path / "in")


@pytest.fixture(scope="session")
def make_run() -> Callable[[Path], Run]:
    """A run in a folder of its own."""
    return lambda folder: Run(RunFolder(str(folder / "run")), folder / "in")
