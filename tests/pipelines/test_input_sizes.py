"""Sizes of shards and numbers of images, against what was written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from lib.files import storage
from pipelines.config import RunConfig
from pipelines.input_sizes import InputSizes, input_sizes
from pipelines.inputs import expand_inputs


@pytest.fixture
def store() -> Iterator[str]:
    """A folder of an object store in memory."""
    yield "memory://sizes/in"
    fsspec.filesystem("memory").rm("/sizes", recursive=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How often the store in memory was asked for what."""
    counts = {"info": 0, "ls": 0}
    kind = type(fsspec.filesystem("memory"))
    for name in counts:
        original = getattr(kind, name)

        def counted(
            self: Any, *args: Any, _of: Any = original, _as: str = name, **more: Any
        ) -> Any:
            counts[_as] += 1
            return _of(self, *args, **more)

        monkeypatch.setattr(kind, name, counted)
    return counts


def sizes_of(shards: ModuleType, pattern: str) -> tuple[RunConfig, InputSizes]:
    made: RunConfig = shards.config("embedded", pattern, Path("/nowhere/run"))
    return made, input_sizes(made, expand_inputs(made.input.shards))


def test_every_local_file_is_looked_at_and_a_missing_one_has_no_image(
    shards: ModuleType, tmp_path: Path
) -> None:
    for number, pictures in enumerate((20, 40, 10)):
        shards.write_tar(tmp_path / f"in-{number}.tar", shards.samples(pictures))
    _, found = sizes_of(shards, f"{tmp_path}/in-{{0..3}}.tar")
    assert found.known["in-3"] == 0
    assert [found.known[f"in-{n}"] for n in range(3)] == [
        (tmp_path / f"in-{n}.tar").stat().st_size for n in range(3)
    ]
    images = found.images(f"in-{number}" for number in range(4))
    assert images == pytest.approx([20, 40, 10, 0], rel=0.2)


def test_one_listing_tells_the_sizes_of_all_shards_of_a_folder(
    shards: ModuleType, store: str, asked: dict[str, int]
) -> None:
    data = {f"in-{n:02d}": shards.tar_bytes(shards.samples(2 + n % 3)) for n in range(20)}
    for name, content in data.items():
        storage.replace(f"{store}/{name}.tar", content)
    storage.replace(f"{store}/else.tar", b"not an input")
    asked.update(info=0, ls=0)
    _, found = sizes_of(shards, f"{store}/in-{{00..20}}.tar")
    assert found.known == {name: len(content) for name, content in data.items()} | {"in-20": 0}
    assert asked["ls"] == 1
    assert asked["info"] <= 1  # of the one shard that is opened


def test_a_few_shards_of_a_store_are_asked_one_by_one(
    shards: ModuleType, store: str, asked: dict[str, int]
) -> None:
    content = shards.tar_bytes(shards.samples(3))
    storage.replace(f"{store}/in-0.tar", b"damaged")
    storage.replace(f"{store}/in-1.tar", content)
    asked.update(info=0, ls=0)
    _, found = sizes_of(shards, f"{store}/in-{{0..2}}.tar")
    assert found.known == {"in-0": 7, "in-1": len(content)}
    assert found.bytes_an_image == len(content) / 3
    assert asked["ls"] == 0
    assert found.images(["in-2"]) == [(7 + len(content)) / 2 / (len(content) / 3)]


def test_where_no_shard_can_be_read_there_is_no_image(shards: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "in.tar").write_bytes(b"damaged")
    _, found = sizes_of(shards, str(tmp_path / "in.tar"))
    assert found.images(["in"]) == [0.0]
