"""Groups the members of a shard into samples by WebDataset's naming rules, and accounts for all.

A member is part of a sample or named in `ignored`; a sample is returned or is a failure. The
identity of a sample is (shard, index); its key is a label that other shards may use too.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from lib.files.tar_reader import Member, TarTooLargeError, read_members
from lib.receipts import Failure

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"})

# The rules of webdataset: a key ends at the first dot of the base name; `__meta__/...` is skipped.
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_RESERVED = re.compile(r"__[^/]*__($|/)")
# A backslash may also begin the `\xNN` that the tar reader writes for a byte that is no UTF-8.
_ABSOLUTE = re.compile(r"/|\\(?!x[0-9a-f]{2})")


class ShardDamage(ValueError):
    """A shard that must be given up; `kind` is truncated, empty or too_large."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SampleError(ValueError):
    """A sample that cannot be used; `kind` is no_image or ambiguous_image."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class RawSample:
    """The files of one sample, undecoded."""

    shard: str
    index: int
    """Position among the samples of the shard, failed ones counted."""
    key: str
    files: Mapping[str, bytes]
    """Contents by extension: lowercase, all that follows the first dot of the base name."""


@dataclass(frozen=True, slots=True)
class ShardContents:
    """What a shard holds: n_in == len(samples) + the number of failures that have an index."""

    samples: tuple[RawSample, ...]
    failures: tuple[Failure, ...]
    n_in: int
    ignored: tuple[str, ...]
    """Names of directories, hidden and reserved members, and members without an extension."""


@dataclass(slots=True)
class _Group:
    """Neighbouring members of one key."""

    key: str
    files: dict[str, bytes] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    """Kind and message of the first thing that condemns the sample."""

    def condemn(self, kind: str, message: str) -> None:
        self.problem = self.problem or (kind, message)


def read_shard(data: bytes, shard: str, *, max_bytes: int, salvage: bool) -> ShardContents:
    """The samples of a tar (plain or gzipped) that is held in memory.

    With `salvage` the readable samples of a damaged tar are kept: the sample at the break, which
    may lack files, fails as `truncated`, and a failure without index and key stands for what lies
    behind it.

    Raises:
        ShardDamage: the tar is damaged (without `salvage`), has no sample at all, or has more than
            `max_bytes` bytes.

    """
    try:
        contents = read_members(data, max_bytes)
    except TarTooLargeError as error:
        raise ShardDamage("too_large", f"shard {shard}: {error}") from error
    damage = contents.damage
    if damage is not None and not salvage:
        raise ShardDamage("truncated", f"shard {shard} is damaged: {damage}")

    groups, ignored = _group(contents.members)
    if damage is not None:
        _condemn_broken(groups, contents.broken_name, damage)
    if not groups:
        reason = damage or "expected members named like key.jpg"
        kind = "empty" if damage is None else "truncated"
        raise ShardDamage(kind, f"shard {shard} has no sample: {reason}")
    _condemn_returning_keys(groups)

    samples: list[RawSample] = []
    failures: list[Failure] = []
    for index, group in enumerate(groups):
        if group.problem is None:
            samples.append(RawSample(shard, index, group.key, group.files))
        else:
            kind, message = group.problem
            failures.append(Failure(shard, index, group.key, "read", kind, message))
    if damage is not None:
        failures.append(Failure(shard, None, None, "read", "truncated", damage))
    return ShardContents(tuple(samples), tuple(failures), len(groups), tuple(ignored))


def image_member(sample: RawSample, claimed: Collection[str]) -> str:
    """The extension under which a sample holds its image.

    `claimed` are extensions of other files that may look like images, such as the mask "eyes.png".
    A plain extension (`jpg`) goes before a dotted one (`photo.jpg` of `my.photo.jpg`).

    Raises:
        SampleError: there is no image, or more than one.

    """
    taken = {extension.lower() for extension in claimed}
    free = [extension for extension in sample.files if extension not in taken]
    plain = [extension for extension in free if extension in IMAGE_EXTENSIONS]
    found = plain or [name for name in free if name.rpartition(".")[2] in IMAGE_EXTENSIONS]
    if len(found) == 1:
        return found[0]
    present = ", ".join(sorted(sample.files))
    if found:
        names = ", ".join(sorted(found))
        raise SampleError(
            "ambiguous_image",
            f"expected one image, found {names} (of {present}). Name each mask file in the config",
        )
    expected = ", ".join(sorted(IMAGE_EXTENSIONS))
    raise SampleError("no_image", f"expected one image ({expected}), found {present}")


def _group(members: tuple[Member, ...]) -> tuple[list[_Group], list[str]]:
    groups: list[_Group] = []
    ignored: list[str] = []
    for member in members:
        split = _split(member)
        if split is None:
            ignored.append(member.name)
            continue
        key, extension = split
        if not groups or groups[-1].key != key:
            groups.append(_Group(key))
        _add(groups[-1], extension, member)
    return groups, ignored


def _split(member: Member) -> tuple[str, str] | None:
    """Key and extension of a member's name, None if it is part of no sample."""
    if member.kind == "directory":
        return None
    name = _plain_name(member.name)
    match = _KEY_AND_EXTENSION.fullmatch(name)
    if match is None or _RESERVED.match(name):
        return None
    return match[1], match[2].lower()


def _plain_name(name: str) -> str:
    """The name without the `./` that `tar cf x.tar .` puts in front."""
    while name.startswith("./"):
        name = name[2:]
    return name


def _add(group: _Group, extension: str, member: Member) -> None:
    if member.kind != "file":
        group.condemn("unsafe_name", f"{member.name} is a {member.kind}; expected a regular file")
    elif _is_unsafe(member.name):
        group.condemn(
            "unsafe_name",
            f"{member.name!r} is no safe name; expected a relative path without '..'",
        )
    elif extension in group.files:
        group.condemn(
            "duplicate_key",
            f"sample {group.key} has two files .{extension} (case does not count)",
        )
    else:
        group.files[extension] = member.data


def _is_unsafe(name: str) -> bool:
    return bool(_ABSOLUTE.match(name)) or "\0" in name or ".." in re.split(r"[/\\]", name)


def _condemn_broken(groups: list[_Group], broken_name: str | None, damage: str) -> None:
    """Fail the sample that the break runs through: that of the cut member, else the last one."""
    broken = _split(Member(broken_name, b"", "file")) if broken_name is not None else None
    if broken is not None and (not groups or groups[-1].key != broken[0]):
        groups.append(_Group(broken[0]))
    if groups:
        groups[-1].condemn("truncated", f"the sample may lack files: {damage}")


def _condemn_returning_keys(groups: list[_Group]) -> None:
    """Fail all parts of a key whose files are not neighbours: none is known to be whole."""
    for key, places in _places(groups):
        if len(places) > 1:
            where = ", ".join(map(str, places))
            for index in places:
                groups[index].condemn(
                    "duplicate_key",
                    f"the files of key {key} are in {len(places)} places (samples {where}); "
                    "expected them side by side. Sort the members when making the tar "
                    "(tar --sort=name)",
                )


def _places(groups: list[_Group]) -> Iterator[tuple[str, list[int]]]:
    places: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        places.setdefault(group.key, []).append(index)
    yield from places.items()
