"""The input shards of a run: patterns written out, each with the name that all of it carries."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib.files import storage
from lib.files.store_backends import local_path
from lib.problems import ConfigProblem

_ENDINGS = (".tar.gz", ".tgz", ".tar")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+@-]{0,199}")


@dataclass(frozen=True, slots=True)
class ShardInput:
    """One input shard."""

    name: str
    """The file name without `.tar`; unique in a run, and part of the names of its outputs."""
    url: str


def expand_inputs(patterns: Sequence[str]) -> tuple[ShardInput, ...]:
    """The shards that `patterns` stand for, sorted by name; local paths become absolute.

    Raises:
        ConfigProblem: a pattern matches nothing, or two shards would have one name.

    """
    try:
        urls = storage.expand(patterns)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigProblem(f"input.shards: {error}") from error
    if not urls:
        raise ConfigProblem(
            f"input.shards: expected at least one shard, but {list(patterns)} names none"
        )
    found: dict[str, str] = {}
    for url in urls:
        name = shard_name(url)
        if name in found:
            raise ConfigProblem(
                "input.shards: expected shards with different file names, but"
                f" {storage.redact(found[name])} and {storage.redact(url)} are both named {name!r};"
                " rename one, or run them into two folders"
            )
        found[name] = absolute(url)
    return tuple(ShardInput(name, found[name]) for name in sorted(found))


def missing_inputs(inputs: Sequence[ShardInput]) -> tuple[ShardInput, ...]:
    """Those of `inputs` that are local paths at which there is no file; other stores are not asked.

    A brace range names its shards whether they are there or not.
    """
    paths = ((shard, local_path(shard.url)) for shard in inputs)
    return tuple(shard for shard, path in paths if path is not None and not os.path.isfile(path))


def none_there(inputs: Sequence[ShardInput]) -> ConfigProblem:
    """What to raise where all of `inputs` are missing."""
    first = storage.redact(inputs[0].url)
    return ConfigProblem(
        f"input.shards: expected WebDataset tars, but none of the {len(inputs)} files is there,"
        f" such as {first}; check the folder and the pattern; `deltah demo --faces-only` makes the"
        " faces of the demo's presets"
    )


def shard_name(url: str) -> str:
    """The file name of `url` without its tar ending.

    Raises:
        ConfigProblem: the name cannot be part of a file name on every store.

    """
    base = storage.basename(url)
    ending = next((each for each in _ENDINGS if base.lower().endswith(each)), "")
    name = base[: len(base) - len(ending)]
    if not _NAME.fullmatch(name):
        raise ConfigProblem(
            "input.shards: expected a file name of at most 200 letters, digits and _ . , = + @ -,"
            f" no dot first, got {base!r} in {storage.redact(url)}"
        )
    return name


def absolute(url: str) -> str:
    """`url`, with a local path made absolute: workers run in other folders."""
    if "://" in url:
        return url
    return os.path.abspath(os.path.expanduser(url))
