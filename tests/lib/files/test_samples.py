"""Every member is in a sample or in `ignored`, every sample is returned or is a failure."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from lib.files.samples import (
    RawSample,
    SampleError,
    ShardContents,
    ShardDamage,
    image_member,
    read_shard,
)
from lib.files.tar_writer import write_tar

LIMIT = 10_000_000
MEMBERS = [
    (f"{key:03d}.{ext}", f"{key} {ext} ".encode() * (90 * key + 1))
    for key in range(6)
    for ext in ("jpg", "json", "eyes.png")
]
GOOD = write_tar(MEMBERS)
with tarfile.open(fileobj=io.BytesIO(GOOD)) as _archive:
    ENTRIES = _archive.getmembers()


def shard(*names: str, salvage: bool = False) -> ShardContents:
    """A shard of small files; a name that ends in `->` is a symbolic link, in `/` a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name.removesuffix("->"))
            if name.endswith("->"):
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
            elif name.endswith("/"):
                entry.type = tarfile.DIRTYPE
            entry.size = 0 if entry.type != tarfile.REGTYPE else len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    return read_shard(file.getvalue(), "s", max_bytes=LIMIT, salvage=salvage)


def outcome(contents: ShardContents) -> list[tuple[int | None, str | None, str]]:
    """(index, key, kind) of all samples and failures, in order."""
    good = [(sample.index, sample.key, "ok") for sample in contents.samples]
    bad = [(failure.index, failure.key, failure.kind) for failure in contents.failures]
    numbered = [row for row in good + bad if row[0] is not None]
    assert sorted(row[0] for row in numbered) == list(range(contents.n_in))
    assert all((f.shard, f.stage) == ("s", "read") for f in contents.failures)
    return sorted(numbered) + [row for row in bad if row[0] is None]


def test_samples_are_grouped_by_key_in_order() -> None:
    contents = read_shard(GOOD, "s", max_bytes=LIMIT, salvage=False)
    assert outcome(contents) == [(index, f"{index:03d}", "ok") for index in range(6)]
    assert contents.ignored == ()
    assert contents.samples[2] == RawSample(
        "s", 2, "002", {n.partition(".")[2]: d for n, d in MEMBERS if n.startswith("002")}
    )


def test_webdataset_groups_the_same_tar_alike(tmp_path: Path) -> None:
    names = ["a/x.jpg", "a/x.JSON", "b/x.jpg", "img_0.5.jpg", "two words.cls", "__meta__.json",
             "__index__/a.jpg", "noext", "d.ir/y.tar.gz"]  # fmt: skip
    data = write_tar([(name, name.encode()) for name in names])
    (tmp_path / "a.tar").write_bytes(data)
    theirs = [
        (s["__key__"], {k: v for k, v in s.items() if not k.startswith("__")})
        for s in webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False)
    ]
    ours = read_shard(data, "s", max_bytes=LIMIT, salvage=False)
    assert [(sample.key, dict(sample.files)) for sample in ours.samples] == theirs
    assert ours.ignored == ("__index__/a.jpg", "noext")


def test_what_is_no_part_of_a_sample_is_listed() -> None:
    names = ("./", "sub/", "a.jpg", "sub/.hidden.jpg", "README", "a.json", "__x__", "b.", ".c.jpg")
    contents = shard(*names)
    assert [(s.key, sorted(s.files)) for s in contents.samples] == [("a", ["jpg", "json"])]
    # A folder's name loses its slash in the tar.
    ignored = (".", "sub", "sub/.hidden.jpg", "README", "__x__", "b.", ".c.jpg")
    assert contents.ignored == ignored


def test_a_key_that_comes_back_fails_all_its_parts() -> None:
    contents = shard("a.jpg", "b.jpg", "a.json", "c.jpg")
    assert outcome(contents) == [
        (0, "a", "duplicate_key"),
        (1, "b", "ok"),
        (2, "a", "duplicate_key"),
        (3, "c", "ok"),
    ]
    assert "2 places (samples 0, 2)" in contents.failures[0].message


@pytest.mark.parametrize("second", ["a.jpg", "a.JPG"])
def test_the_same_extension_twice_fails_the_sample(second: str) -> None:
    assert outcome(shard("a.jpg", second, "b.jpg")) == [(0, "a", "duplicate_key"), (1, "b", "ok")]


@pytest.mark.parametrize(
    "name",
    ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "a.jpg->", "x\\..\\a.jpg", "\\\\host\\a.jpg"],
)
def test_unsafe_names_and_links_fail_their_sample_only(name: str) -> None:
    contents = shard("0.jpg", name, "z.jpg")
    assert [kind for _, _, kind in outcome(contents)] == ["ok", "unsafe_name", "ok"]
    assert contents.samples[-1].index == 2


def test_a_link_among_good_files_takes_its_sample_along() -> None:
    assert outcome(shard("a.jpg", "a.png->", "b.jpg")) == [(0, "a", "unsafe_name"), (1, "b", "ok")]


def test_a_damaged_shard_is_given_up_unless_salvaged() -> None:
    cut = GOOD[: ENTRIES[7].offset]  # 002.json is lost, 002.jpg is there
    with pytest.raises(ShardDamage, match="shard s is damaged: cut between members") as caught:
        read_shard(cut, "s", max_bytes=LIMIT, salvage=False)
    assert caught.value.kind == "truncated"
    contents = read_shard(cut, "s", max_bytes=LIMIT, salvage=True)
    assert outcome(contents) == [
        (0, "000", "ok"),
        (1, "001", "ok"),
        (2, "002", "truncated"),
        (None, None, "truncated"),
    ]


def test_a_cut_in_the_first_file_of_a_sample_spares_the_sample_before() -> None:
    cut = GOOD[: ENTRIES[6].offset_data + 10]  # inside 002.jpg
    contents = read_shard(cut, "s", max_bytes=LIMIT, salvage=True)
    assert [kind for _, _, kind in outcome(contents)] == ["ok", "ok", "truncated", "truncated"]
    assert contents.samples[1].files["eyes.png"] == MEMBERS[5][1]


@pytest.mark.parametrize("data", [b"", b"<html>404</html>" * 99, GOOD[:100]])
def test_what_holds_no_readable_sample_is_given_up_even_with_salvage(data: bytes) -> None:
    with pytest.raises(ShardDamage, match="shard s has no sample") as caught:
        read_shard(data, "s", max_bytes=LIMIT, salvage=True)
    assert caught.value.kind == "truncated"


@pytest.mark.parametrize("names", [[], ["README", "__x__"]])
@pytest.mark.parametrize("salvage", [True, False])
def test_a_whole_tar_without_a_sample_is_empty(names: list[str], salvage: bool) -> None:
    with pytest.raises(ShardDamage, match="has no sample: expected members named like") as caught:
        shard(*names, salvage=salvage)
    assert caught.value.kind == "empty"


def test_a_shard_over_the_limit_is_given_up() -> None:
    with pytest.raises(ShardDamage, match="at most 1000") as caught:
        read_shard(GOOD, "s", max_bytes=1000, salvage=True)
    assert caught.value.kind == "too_large"


def check_cut(length: int) -> None:
    """A good tar cut at `length` accounts for all it lost."""
    whole = dict(MEMBERS)
    end = ENTRIES[-1].offset_data + -(-ENTRIES[-1].size // 512) * 512
    try:
        contents = read_shard(GOOD[:length], "s", max_bytes=LIMIT, salvage=True)
    except ShardDamage:
        assert length < ENTRIES[0].offset_data
        return
    outcome(contents)
    assert contents.n_in == len(contents.samples) + sum(
        failure.index is not None for failure in contents.failures
    )
    for sample in contents.samples:
        assert sorted(sample.files) == ["eyes.png", "jpg", "json"]
        for extension, data in sample.files.items():
            assert data == whole[f"{sample.key}.{extension}"]
    if length >= end + 1024:
        assert len(contents.samples) == 6
        assert contents.failures == ()
        return
    assert [f.kind for f in contents.failures if f.index is None] == ["truncated"]
    # A sample is kept when the next one has begun, and nothing but the samples cut off is missing.
    begun = {e.name[:3] for e in ENTRIES if e.offset_data <= length}
    assert contents.n_in == len(begun)
    assert len(contents.samples) == len(begun) - 1
    with pytest.raises(ShardDamage):
        read_shard(GOOD[:length], "s", max_bytes=LIMIT, salvage=False)


def test_a_cut_at_every_block_is_never_silently_short() -> None:
    for length in range(0, len(GOOD) + 1, 512):
        check_cut(length)


@given(st.integers(0, len(GOOD)))
def test_a_cut_at_any_byte_is_never_silently_short(length: int) -> None:
    check_cut(length)


@pytest.mark.parametrize("order", [["--sort=name", "."], ["b.jpg", "a.jpg", "b.txt", "a.txt"]])
def test_tars_of_the_tar_command_are_read_well(tmp_path: Path, order: list[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "a.txt", "b.jpg", "b.txt"):
        (folder / name).write_text(name)
    subprocess.run(["tar", "-C", folder, "-czf", tmp_path / "a.tgz", *order], check=True)
    contents = read_shard((tmp_path / "a.tgz").read_bytes(), "s", max_bytes=LIMIT, salvage=False)
    if order[-1] == ".":
        assert contents.ignored == (".",)
        assert [(s.key, s.files["txt"]) for s in contents.samples] == [
            ("a", b"a.txt"),
            ("b", b"b.txt"),
        ]
    else:
        assert {f.kind for f in contents.failures} == {"duplicate_key"}
        assert "tar --sort=name" in contents.failures[0].message


def test_a_hard_link_that_tar_makes_of_a_double_name_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jpg").write_text("x")
    os.link(folder / "a.jpg", folder / "b.jpg")
    subprocess.run(["tar", "-C", folder, "--sort=name", "-cf", tmp_path / "a.tar", "."], check=True)
    contents = read_shard((tmp_path / "a.tar").read_bytes(), "s", max_bytes=LIMIT, salvage=False)
    assert outcome(contents) == [(0, "a", "ok"), (1, "b", "unsafe_name")]


def raw(*extensions: str) -> RawSample:
    return RawSample("s", 0, "k", dict.fromkeys(extensions, b""))


@pytest.mark.parametrize(
    ("extensions", "claimed", "found"),
    [
        (["jpg", "json"], [], "jpg"),
        (["jpg", "eyes.png"], [], "jpg"),
        (["jpg", "png"], ["png"], "jpg"),
        (["jpg", "png"], ["PNG"], "jpg"),
        (["photo.jpg", "txt"], [], "photo.jpg"),
        (["photo.jpg", "eyes.png"], ["eyes.png"], "photo.jpg"),
        (["tiff"], ["eyes.png"], "tiff"),
    ],
)
def test_the_image_of_a_sample(extensions: list[str], claimed: list[str], found: str) -> None:
    assert image_member(raw(*extensions), claimed) == found


@pytest.mark.parametrize(
    ("extensions", "claimed", "kind", "words"),
    [
        (["jpg", "png"], [], "ambiguous_image", "found jpg, png"),
        (["5.jpg", "7.jpg"], [], "ambiguous_image", "found 5.jpg, 7.jpg"),
        (["json", "txt"], [], "no_image", "found json, txt"),
        (["eyes.png"], ["eyes.png"], "no_image", "found eyes.png"),
    ],
)
def test_no_image_and_several_images_are_named(
    extensions: list[str], claimed: list[str], kind: str, words: str
) -> None:
    with pytest.raises(SampleError, match=words) as caught:
        image_member(raw(*extensions), claimed)
    assert caught.value.kind == kind
