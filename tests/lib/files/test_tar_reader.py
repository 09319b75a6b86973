"""The corruption corpus: no damage that a tar format can show goes unseen."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.files.tar_reader import TarTooLargeError, read_members
from lib.files.tar_writer import write_tar

LIMIT = 10_000_000
SIZES = [700, 512, 0, 1, 1300, 511, 513, 90, 1024, 5]
MEMBERS = [(f"{i:03d}.jpg", bytes([65 + i]) * size) for i, size in enumerate(SIZES)]
GOOD = write_tar(MEMBERS)
with tarfile.open(fileobj=io.BytesIO(GOOD)) as _archive:
    HEADERS = [entry.offset for entry in _archive]
END = HEADERS[-1] + 1024  # the last member has one block of data


def read(data: bytes) -> tuple[list[tuple[str, bytes]], str | None]:
    contents = read_members(data, LIMIT)
    return [(member.name, member.data) for member in contents.members], contents.damage


def overwritten(start: int, stop: int, filler: bytes) -> bytes:
    return GOOD[:start] + (filler * (stop - start))[: stop - start] + GOOD[stop:]


def test_a_good_tar_is_read_whole() -> None:
    assert read(GOOD) == (MEMBERS, None)
    assert {member.kind for member in read_members(GOOD, LIMIT).members} == {"file"}


DAMAGED = {
    "cut at a member boundary": (
        GOOD[: HEADERS[5]],
        5,
        f"cut between members: the tar stops at byte {HEADERS[5]} ",
    ),
    "cut inside a header": (GOOD[: HEADERS[5] + 200], 5, "cut inside the header"),
    "cut in data": (GOOD[: HEADERS[4] + 512 + 600], 4, "inside the data of 004.jpg"),
    "cut in the padding behind data": (GOOD[: HEADERS[4] + 512 + 1400], 5, "behind the data of"),
    "end mark missing": (GOOD[:END], 10, "cut between members"),
    "half an end mark": (GOOD[: END + 512], 10, "cut inside the end mark"),
    "header zeroed": (overwritten(HEADERS[5], HEADERS[5] + 512, b"\0"), 5, "was zeroed"),
    "two blocks zeroed": (overwritten(HEADERS[5], HEADERS[5] + 1024, b"\0"), 5, "was zeroed"),
    "header overwritten": (overwritten(HEADERS[5], HEADERS[5] + 512, b"\x7f"), 5, "overwritten"),
    "one header byte flipped": (
        overwritten(HEADERS[5], HEADERS[5] + 1, b"?"),
        5,
        "no valid header",
    ),
    "two tars joined": (GOOD + GOOD, 10, "joined end to end"),
    "rubbish behind the end": (GOOD + b"x", 10, "zeros at byte"),
    "first header overwritten": (overwritten(0, 512, b"\x7f"), 0, "this is no tar"),
    "0 bytes": (b"", 0, "empty"),
    "no tar": (b"<html>404</html>" * 100, 0, "this is no tar"),
    "an image": (b"\xff\xd8\xff\xe0" + b"x" * 2000, 0, "this is no tar"),
    "zip": (b"PK\x03\x04" + b"x" * 2000, 0, "zip"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_told_and_what_lies_before_it_is_kept(case: str) -> None:
    data, kept, words = DAMAGED[case]
    members, damage = read(data)
    assert members == MEMBERS[:kept]
    assert damage is not None
    assert words in damage


@pytest.mark.parametrize(
    "case", ["cut at a member boundary", "cut inside a header", "header overwritten"]
)
def test_the_standard_library_really_is_silent_about_these(case: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(DAMAGED[case][0])) as archive:
        assert len(archive.getmembers()) == 5


def test_a_cut_at_every_block_and_beside_it_is_seen() -> None:
    blocks = range(0, len(GOOD), 512)
    for length in sorted({*blocks, *(b + 1 for b in blocks), *(b + 511 for b in blocks)}):
        members, damage = read(GOOD[:length])
        assert members == MEMBERS[: len(members)]
        # The tar says all it has to say once its end mark of two blocks is there.
        assert (damage is None) == (length >= END + 1024), length


@given(st.integers(0, END - 1), st.binary(min_size=1, max_size=400))
def test_bytes_written_over_are_seen_or_lie_in_data(start: int, filler: bytes) -> None:
    members, damage = read(GOOD[:start] + filler + GOOD[start + len(filler) :])
    if damage is None:
        # Then every header was read, up to the end mark, and the blocks add up.
        blocks = sum(1 + -(-len(contents) // 512) for _, contents in members)
        assert blocks * 512 == END
        assert len(members) == len(MEMBERS)


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    members, damage = read(data)
    assert damage is not None or not any(data) or members


def _with_size(field: bytes) -> bytes:
    header = bytearray(GOOD[:512])
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + GOOD[512:]


@pytest.mark.parametrize(
    "field", [b"\xff" * 10 + b"\xfe\x00", b"\xff" * 12, b"\x80" + b"\xff" * 11, b"77777777777\0"]
)
@pytest.mark.timeout(10)
def test_an_impossible_size_is_damage_not_a_hang(field: bytes) -> None:
    members, damage = read(_with_size(field))
    assert members == []
    assert damage is not None


def test_nested_extension_headers_without_end_are_damage() -> None:
    header = tarfile.TarInfo("x")
    header.type = tarfile.XHDTYPE
    assert read(header.tobuf() * 5000)[1] is not None


def test_gzip_is_read_whole_also_in_several_members() -> None:
    assert read(gzip.compress(GOOD)) == (MEMBERS, None)
    many = b"".join(gzip.compress(GOOD[i : i + 700]) for i in range(0, len(GOOD), 700))
    assert read(many) == (MEMBERS, None)
    assert read(many + bytes(900)) == (MEMBERS, None)


def test_gzip_cut_at_any_byte_is_seen() -> None:
    packed = gzip.compress(GOOD)
    for length in range(len(packed)):
        members, damage = read(packed[:length])
        assert members == MEMBERS[: len(members)]
        assert damage is not None


def test_gzip_with_a_wrong_checksum_or_a_tail_is_seen() -> None:
    packed = gzip.compress(GOOD)
    assert read(packed[:-8] + b"\0\0\0\0" + packed[-4:]) == (
        [],
        "the gzip data is broken near byte 0 of the file "
        "(Error -3 while decompressing data: incorrect data check)",
    )
    members, damage = read(packed + b"tail")
    assert members == MEMBERS
    assert "gzip" in str(damage)


def test_what_unpacks_to_more_than_the_limit_is_refused() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 100_000
    with pytest.raises(TarTooLargeError, match="more than 10000000"):
        read_members(bomb, LIMIT)
    with pytest.raises(TarTooLargeError, match=f"has {len(GOOD)} bytes; at most 100"):
        read_members(GOOD, 100)
    assert read_members(gzip.compress(GOOD), len(GOOD)).damage is None


def test_other_kinds_of_member_are_named_and_not_followed() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, kind in [
            ("d", tarfile.DIRTYPE),
            ("s.jpg", tarfile.SYMTYPE),
            ("h.jpg", tarfile.LNKTYPE),
            ("c.jpg", tarfile.CHRTYPE),
            ("p.jpg", tarfile.FIFOTYPE),
            ("v", b"V"),
        ]:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            entry.linkname = "/etc/passwd"
            archive.addfile(entry)
    contents = read_members(file.getvalue(), LIMIT)
    assert contents.damage is None
    assert [(m.name, m.kind) for m in contents.members] == [
        ("d", "directory"),
        ("s.jpg", "link"),
        ("h.jpg", "link"),
        ("c.jpg", "device"),
        ("p.jpg", "device"),
        ("v", "other"),
    ]
    assert {member.data for member in contents.members} == {b""}


LONG = "long-" * 60 + ".jpg"


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.jpg").write_bytes(b"a" * 3000)
    (folder / "sub" / LONG[-200:]).write_bytes(b"long")
    with open(folder / "z.bin", "wb") as file:
        file.write(b"begin")
        file.seek(3_000_000)
        file.write(b"end")
    return folder


@pytest.mark.parametrize("form", ["gnu", "posix", "oldgnu"])
@pytest.mark.parametrize("sparse", [[], ["--sparse"]])
def test_gnu_tar_with_long_names_folders_and_holes(
    tmp_path: Path, form: str, sparse: list[str]
) -> None:
    folder = _folder(tmp_path)
    subprocess.run(
        ["tar", f"--format={form}", *sparse, "--sort=name", "-C", folder, "-cf",
         tmp_path / "a.tar", "."],
        check=True,
    )  # fmt: skip
    contents = read_members((tmp_path / "a.tar").read_bytes(), LIMIT)
    assert contents.damage is None
    assert [(m.name, m.kind) for m in contents.members] == [
        (".", "directory"),
        ("./a.jpg", "file"),
        ("./sub", "directory"),
        ("./sub/" + LONG[-200:], "file"),
        ("./z.bin", "file"),
    ]
    assert contents.members[4].data == (folder / "z.bin").read_bytes()


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_gnu_tar_cut_at_every_block_is_seen(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}-{'n' * 120}.jpg").write_bytes(bytes([65 + index]) * 600)
    subprocess.run(
        ["tar", f"--format={form}", "-C", folder, "-cf", tmp_path / "a.tar", "."], check=True
    )
    data = (tmp_path / "a.tar").read_bytes()
    end = len(data.rstrip(b"\0"))
    end += -end % 512
    for length in range(0, len(data), 256):
        contents = read_members(data[:length], LIMIT)
        assert (contents.damage is None) == (length >= end + 1024), length


def test_a_sparse_bomb_is_refused_before_it_is_written_out(tmp_path: Path) -> None:
    with open(tmp_path / "a.bin", "wb") as file:
        file.truncate(2**40)
    subprocess.run(
        ["tar", "--sparse", "-C", tmp_path, "-cf", tmp_path / "a.tar", "a.bin"], check=True
    )
    with pytest.raises(TarTooLargeError, match=r"sparse file a\.bin"):
        read_members((tmp_path / "a.tar").read_bytes(), LIMIT)


def test_undecodable_names_become_valid_text() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT, encoding="latin-1") as a:
        entry = tarfile.TarInfo("größe.jpg")
        a.addfile(entry)
    (member,) = read_members(file.getvalue(), LIMIT).members
    assert member.name == r"gr\xf6\xdfe.jpg"
    member.name.encode("utf-8")
