"""Whatever lies in a shard, every sample of it is accounted for; whatever a shard is, the run ends
and says so.
"""

from __future__ import annotations

import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image
from rich.console import Console

from cluster.pools.protocol import WorkerBody
from cluster.runner import run
from cluster.scheduling.orders import Rules
from cluster.settlement import Outcome
from lib.files.samples import ShardDamage
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.receipts import ShardReport, ShardTask
from pipelines.config import RunConfig
from pipelines.worker import ShardWorker


def bomb(side: int) -> bytes:
    """A PNG of side x side black pixels in one bit each: a few kilobytes that unpack to gigabytes
    in RGB.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((1 + side // 8) * side), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def animation(shards: ModuleType, kind: str) -> bytes:
    file = BytesIO()
    first, *rest = (shards.picture(seed) for seed in range(3))
    first.save(file, kind, save_all=True, append_images=rest)
    return file.getvalue()


@dataclass
class Hostile:
    """The members of a shard that holds every bad kind, and what is expected of each sample."""

    members: list[tuple[str, bytes]] = field(default_factory=list)
    expected: list[tuple[str, str]] = field(default_factory=list)
    """(stage, kind) by index; ("", "") for a sample that is edited."""

    def add(self, files: dict[str, bytes], stage: str = "", kind: str = "") -> None:
        self.members += files.items()
        self.expected.append((stage, kind))


@pytest.fixture(scope="module")
def hostile(shards: ModuleType) -> Hostile:
    good, mask = shards.encoded(shards.picture(1)), shards.mask()
    jpeg = shards.encoded(shards.picture(2, 64, 48), "JPEG")
    turned = Image.Exif()
    turned[0x0112] = 6
    found = Hostile()
    add = found.add
    add({"a.png": good, "a.part.png": mask})
    add({"b.txt": b"words", "b.part.png": mask}, "decode", "no_image")
    add(
        {"c.png": shards.encoded(shards.picture(3, 1, 1)), "c.part.png": mask},
        "decode",
        "too_small",
    )
    add({"d.png": bomb(20_000), "d.part.png": mask}, "decode", "too_large")
    add({"e.gif": animation(shards, "GIF"), "e.part.png": mask}, "decode", "animated")
    add({"f.webp": animation(shards, "WEBP"), "f.part.png": mask}, "decode", "animated")
    add({"g.jpg": b"This is no photograph.", "g.part.png": mask}, "decode", "not_an_image")
    add({"h.png": good}, "segment", "missing_mask")
    add({"i.png": good, "i.part.png": shards.mask(20, 16)}, "segment", "mask_size")
    add({"j.png": good}, "read", "duplicate_key")
    add({"k.jpg": jpeg, "k.part.png": shards.mask(64, 48, (0, 0, 32, 48))})
    add({"j.part.png": mask}, "read", "duplicate_key")
    add({"../l.png": good, "../l.part.png": mask}, "read", "unsafe_name")
    add({"/etc/m.png": good, "/etc/m.part.png": mask}, "read", "unsafe_name")
    add({"n.jpg": jpeg[: len(jpeg) // 2], "n.part.png": mask}, "decode", "truncated")
    add({"o.png": good, "o.jpg": jpeg, "o.part.png": mask}, "decode", "ambiguous_image")
    add({"p.png": good, "p.part.png": shards.mask(box=(0, 0, 0, 0))}, "segment", "mask_area")
    grey = shards.picture(4).convert("L")
    add({"q.png": shards.encoded(grey.convert("I;16")), "q.part.png": mask})
    add({"r.jpg": shards.encoded(shards.picture(5).convert("CMYK"), "JPEG"), "r.part.png": mask})
    add(
        {
            "s.JPG": shards.encoded(shards.picture(6, 32, 16), "JPEG", exif=turned),
            "s.part.png": mask,
        }
    )
    add({"t.png": shards.encoded(shards.picture(7).convert("RGBA")), "t.part.png": mask})
    add({"u.png": b"", "u.part.png": mask}, "decode", "not_an_image")
    add({"sub/dir/v.png": good, "sub/dir/v.part.png": mask, "sub/dir/v.json": b"{}"})
    for key in ("naïve 😀 <b>", "\udcff\udcfe", "long" * 80, "a\nb", "quote\"'"):
        add({f"{key}.png": good, f"{key}.part.png": mask})
    return found


def config(
    shards: ModuleType, checkpoint: Path, pattern: Path, folder: Path, **sections: Any
) -> RunConfig:
    made: RunConfig = shards.config(
        checkpoint, pattern, folder, segment={"regions": {"part": {"file": "part.png"}}}, **sections
    )
    return made


def errors_of(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted((folder / "errors").glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def test_a_shard_of_every_bad_kind_loses_no_sample_and_edits_the_good_ones(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, hostile: Hostile
) -> None:
    assert len(bomb(20_000)) < 100_000
    shard = shards.write_tar(tmp_path / "in.tar", hostile.members)
    folder, (report,) = shards.work(
        config(shards, tiny_checkpoint, shard, tmp_path / "run"), [shard]
    )
    bad = {i: where for i, where in enumerate(hostile.expected) if where[0]}
    assert report.n_in == len(hostile.expected)
    assert (report.n_ok, report.n_err) == (report.n_in - len(bad), len(bad))

    errors = {row["index"]: row for row in errors_of(tmp_path / "run")}
    assert {i: (row["stage"], row["kind"]) for i, row in errors.items()} == bad
    assert all(len(row["message"]) > 15 for row in errors.values())
    edited = set(pq.read_table(folder.commit_url("in"))["index"].to_pylist())
    assert edited == set(range(report.n_in)) - set(bad)
    keys = set(pq.read_table(folder.commit_url("in"))["key"].to_pylist())
    assert {"naïve 😀 <b>", "\\xff\\xfe", "long" * 80, "sub/dir/v"} <= keys
    found = verify(folder, deep=True)
    assert found.problems == ()
    assert (found.samples_ok, found.samples_err) == (report.n_ok, report.n_err)
    assert not (tmp_path / "l.png").exists()
    assert not (tmp_path.parent / "l.png").exists()


def test_links_and_devices_are_never_followed(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    good, mask = shards.encoded(shards.picture(1)), shards.mask()
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind, data in (
            ("a.png", tarfile.REGTYPE, good),
            ("a.part.png", tarfile.REGTYPE, mask),
            ("b.png", tarfile.SYMTYPE, b""),
            ("b.part.png", tarfile.REGTYPE, mask),
            ("c.png", tarfile.LNKTYPE, b""),
            ("c.part.png", tarfile.REGTYPE, mask),
            ("d.png", tarfile.CHRTYPE, b""),
            ("d.part.png", tarfile.REGTYPE, mask),
        ):
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(data), "a.png"
            archive.addfile(entry, BytesIO(data))
    shard = tmp_path / "in.tar"
    shard.write_bytes(file.getvalue())
    folder, (report,) = shards.work(
        config(shards, tiny_checkpoint, shard, tmp_path / "run"), [shard]
    )
    assert (report.n_in, report.n_ok) == (4, 1)
    kinds = [(row["index"], row["kind"]) for row in errors_of(tmp_path / "run")]
    assert kinds == [(1, "unsafe_name"), (2, "unsafe_name"), (3, "unsafe_name")]
    assert verify(folder, deep=True).ok


def test_a_shard_without_one_good_sample_is_committed_without_images(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", [("a.jpg", b"words"), ("b.txt", b"words")])
    folder, (report,) = shards.work(
        config(shards, tiny_checkpoint, shard, tmp_path / "run"), [shard]
    )
    assert (report.outcome, report.n_ok, report.n_err, report.bytes_out) == ("committed", 0, 2, 0)
    assert not (tmp_path / "run" / "images").exists()
    assert verify(folder, deep=True).problems == ()


def damaged(tar: bytes) -> dict[str, bytes]:
    """One good tar, damaged in each way, by name."""
    with tarfile.open(fileobj=BytesIO(tar)) as archive:
        third = archive.getmembers()[2]
    header, body = third.offset, third.offset_data
    return {
        "cut-in-data": tar[: body + 100],
        "cut-in-header": tar[: header + 100],
        "cut-between": tar[:header],
        "overwritten-header": tar[:header] + b"\xff" * 512 + tar[body:],
        "zeroed-header": tar[:header] + bytes(512) + tar[body:],
        "hollow": bytes(10240),
        "nothing": b"",
        "words": b"This is no tar. " * 100,
    }


@pytest.fixture(scope="module")
def worker(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Path], ShardReport]:
    """Runs one shard in a worker of its own folder."""
    root = tmp_path_factory.mktemp("damaged")
    made = shards.config(tiny_checkpoint, root / "*.tar", root / "run")
    _, fingerprint = shards.claimed(made, {})
    body = ShardWorker(made.model_dump_json(), fingerprint)
    return lambda path: body.run(ShardTask(path.stem, str(path), 1))


def test_a_damaged_tar_is_refused_whole(
    worker: Callable[[Path], ShardReport], shards: ModuleType, tmp_path: Path
) -> None:
    for name, data in damaged(shards.tar_bytes(shards.samples(4))).items():
        shard = tmp_path / f"{name}.tar"
        shard.write_bytes(data)
        with pytest.raises(ShardDamage, match=f"shard {name}"):
            worker(shard)


def drive(made: RunConfig, factory: Callable[[str, str], WorkerBody] = ShardWorker) -> Outcome:
    """The driver with the engine `local`, in this process."""
    rules = Rules(workers=1, max_attempts=2, retry_pause_s=0.1, vanished_pause_s=0.2)
    return run(made, factory=factory, console=Console(file=BytesIO(), quiet=True), rules=rules)


def test_damaged_shards_are_quarantined_and_the_good_one_is_done(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    good = shards.write_tar(tmp_path / "in" / "good.tar", shards.samples(2))
    broken = damaged(shards.tar_bytes(shards.samples(4)))
    for name, data in broken.items():
        (good.parent / f"{name}.tar").write_bytes(data)
    made = shards.config(tiny_checkpoint, good.parent / "*.tar", tmp_path / "run")
    outcome = drive(made)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (3, 1, len(broken))
    folder = RunFolder(str(tmp_path / "run"))
    reasons = folder.quarantined()
    assert set(reasons) == set(broken)
    assert all(f"shard {name}" in reason for name, reason in reasons.items())
    started = shards.events(tmp_path / "run", "shard_started")
    assert len(started) == len(broken) + 1, "what is damaged is not tried again"
    assert verify(folder, deep=True).problems == ()


def test_salvage_keeps_what_can_be_read_and_says_what_cannot(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    """Four pictures of a header and a padded body each; the tar is cut in the third body."""
    tar = shards.tar_bytes(shards.samples(4))
    with tarfile.open(fileobj=BytesIO(tar)) as archive:
        third = archive.getmembers()[2]
    shard = tmp_path / "in.tar"
    shard.write_bytes(tar[: third.offset_data + 100])
    made = shards.config(
        tiny_checkpoint,
        shard,
        tmp_path / "run",
        input={"shards": [str(shard)], "salvage": True},
    )
    outcome = drive(made)
    assert (outcome.exit_code, outcome.done) == (0, 1)
    folder = RunFolder(str(tmp_path / "run"))
    assert [(row["index"], row["key"], row["kind"]) for row in errors_of(tmp_path / "run")] == [
        (2, "picture-002", "truncated"),
        (None, None, "truncated"),
    ]
    edited = pq.read_table(folder.commit_url("in"))["key"].to_pylist()
    assert set(edited) == {"picture-000", "picture-001"}
    found = verify(folder, deep=True)
    assert found.problems == ()
    assert (found.samples_ok, found.samples_err) == (2, 1)


def test_a_shard_that_vanishes_during_the_run_is_given_up_by_name(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 4, 1)

    class Remover:
        """Deletes the last shard while the first is worked on."""

        def __init__(self, config_json: str, fingerprint: str) -> None:
            self._body = ShardWorker(config_json, fingerprint)

        def run(self, task: ShardTask) -> ShardReport:
            (tmp_path / "in" / "in-3.tar").unlink(missing_ok=True)
            return self._body.run(task)

        def images_done(self) -> int:
            return self._body.images_done()

    outcome = drive(shards.config(tiny_checkpoint, pattern, tmp_path / "run"), Remover)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (3, 3, 1)
    folder = RunFolder(str(tmp_path / "run"))
    (reason,) = folder.quarantined().values()
    assert "in-3.tar" in reason
    started = [e["shard"] for e in shards.events(tmp_path / "run", "shard_started")]
    assert started.count("in-3") == 2, "one more look, in case the store was late"
    assert verify(folder).problems == ()


def test_a_shard_larger_than_allowed_is_given_up_unread(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 1, 1)
    shards.write_tar(tmp_path / "in" / "in-large.tar", [("a.bin", bytes(100_000))])
    made = shards.config(
        tiny_checkpoint,
        pattern,
        tmp_path / "run",
        input={"shards": [pattern], "max_shard_bytes": 50_000},
    )
    outcome = drive(made)
    assert (outcome.exit_code, outcome.done, outcome.quarantined) == (3, 1, 1)
    assert "50000" in RunFolder(str(tmp_path / "run")).quarantined()["in-large"]
