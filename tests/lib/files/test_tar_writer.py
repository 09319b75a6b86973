"""Tars are the same bytes every time and every other reader opens them."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset

from lib.files.tar_reader import read_members
from lib.files.tar_writer import write_tar

MEMBERS = [
    ("000.jpg", b"\xff\xd8 not really"),
    ("000.json", b"{}"),
    ("001.jpg", b"x" * 513),
    ("sub/002.jpg", b""),
]
LONG = "folder-" * 20 + "/" + "name-" * 30 + ".jpg"


def test_the_bytes_depend_on_names_and_contents_alone() -> None:
    # A change of this hash changes every committed image tar: raise the schema version with it.
    digest = hashlib.sha256(write_tar(MEMBERS)).hexdigest()
    assert digest == "b90ccc5db06498266f7354cf003de294837efb3c88f2f2d0ff22ee3342f4d1ce"


def test_plain_tarfile_reads_members_with_neutral_metadata() -> None:
    data = write_tar(MEMBERS)
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = archive.getmembers()
        assert [(e.name, archive.extractfile(e).read()) for e in entries] == MEMBERS
    for entry in entries:
        assert (entry.mtime, entry.uid, entry.gid, entry.mode) == (0, 0, 0, 0o644)
        assert (entry.uname, entry.gname, entry.pax_headers) == ("", "", {})


def test_the_same_members_by_tarfile_in_ustar_are_the_same_bytes() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, contents in MEMBERS:
            entry = tarfile.TarInfo(name)
            entry.size = len(contents)
            archive.addfile(entry, io.BytesIO(contents))
    assert write_tar(MEMBERS) == file.getvalue()


def test_webdataset_reads_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(write_tar(MEMBERS))
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [(s["__key__"], sorted(k for k in s if k[0] != "_")) for s in samples] == [
        ("000", ["jpg", "json"]),
        ("001", ["jpg"]),
        ("sub/002", ["jpg"]),
    ]
    assert samples[1]["jpg"] == b"x" * 513


@pytest.mark.parametrize("name", ["a" * 100, "a" * 101, LONG, "größe/Δh.jpg"])
def test_long_and_foreign_names_survive_and_are_deterministic(tmp_path: Path, name: str) -> None:
    data = write_tar([(name, b"x"), ("b", b"y")])
    assert data == write_tar([(name, b"x"), ("b", b"y")])
    assert [(m.name, m.data) for m in read_members(data, len(data)).members] == [
        (name, b"x"),
        ("b", b"y"),
    ]
    (tmp_path / "a.tar").write_bytes(data)
    listed = subprocess.run(
        ["tar", "--quoting-style=literal", "-tf", str(tmp_path / "a.tar")],
        capture_output=True, text=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert listed.stdout.splitlines() == [name, "b"]
    assert listed.stderr == ""


def test_no_members_make_an_empty_but_whole_tar() -> None:
    contents = read_members(write_tar([]), 20_000)
    assert (contents.members, contents.damage) == ((), None)


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"two members 'a\.jpg'"):
        write_tar([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")])


@pytest.mark.parametrize("name", ["", "/a.jpg", "../a.jpg", "a/../../b.jpg", "a/", "a\0b"])
def test_an_unsafe_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no member name"):
        write_tar([(name, b"1")])
