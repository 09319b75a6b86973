"""Exports against safetensors' and torch's own readers, and what must not be imported."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lib.direction import Direction, Scores, content_id, stored
from lib.directions.direction_files import export_directions, import_directions
from lib.problems import ConfigProblem

SCORES = Scores(8, 0.2, 0.15, 0.4, 0.9, 0.99, 0.95, 1.5, "smile", 0.7, 0.1)


def direction(seed: int, steps: tuple[int, ...] = (349,), **values: Any) -> Direction:
    generator = torch.Generator().manual_seed(seed)
    vector_SCYX = stored(torch.randn(len(steps), 4, 2, 3, generator=generator), "float16")
    plain = Direction(
        vector_SCYX=vector_SCYX,
        id=content_id(vector_SCYX, "h", "after", "m", steps),
        space="h",
        h_layer="after",
        model="m",
        timesteps=steps,
        method="jacobian",
        parameters={"directions": 1, "tolerance": 0.1, "names": ["a", "b"]},
        region="eyes",
        mask_sha256="a" * 64,
        shard="s",
        index=seed,
        key=f"k{seed} ü",
        rank=0,
        singular_value=2.0 / 3.0,
        gap=0.5,
        residual=0.01,
        angle=0.02,
        converged=True,
        jvp_count=3,
        vjp_count=4,
        sign_rule="brightens",
        h_norm=10.1,
    )
    return dataclasses.replace(plain, **values)


def directions() -> list[Direction]:
    merged = {"shard": None, "index": None, "key": None, "gap": None, "residual": None}
    return [
        direction(3, parents=("x", "y"), label="smile", window=(900, 300)),
        direction(1, (600, 400, 200), support=12, spread=0.25, scores=SCORES),
        direction(2, **merged, angle=None, singular_value=float("inf")),
    ]


def same(a: Direction, b: Direction) -> bool:
    names = [f.name for f in dataclasses.fields(Direction) if f.name != "vector_SCYX"]
    return torch.equal(a.vector_SCYX, b.vector_SCYX) and all(
        getattr(a, n) == getattr(b, n) and type(getattr(a, n)) is type(getattr(b, n)) for n in names
    )


@pytest.mark.parametrize("name", ["d.safetensors", "d.pt", "d.pth"])
def test_an_export_comes_back_equal_in_every_field_and_in_order(name: str, tmp_path: Path) -> None:
    url = str(tmp_path / name)
    export_directions(directions(), url)
    found = import_directions(url)
    assert len(found) == 3
    assert all(same(a, b) for a, b in zip(directions(), found, strict=True))


def test_safetensors_itself_reads_the_vectors_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "d.safetensors"
    export_directions(directions(), str(path))
    tensors = load_file(path)
    assert set(tensors) == {d.id for d in directions()}
    with safe_open(path, "pt") as file:
        rows = json.loads(file.metadata()["deltah.directions"])["directions"]
    for row, d in zip(rows, directions(), strict=True):
        assert torch.equal(tensors[row["id"]], d.vector_SCYX)
        assert (row["region"], row["timesteps"]) == ("eyes", list(d.timesteps))


def test_torch_reads_the_plain_file_without_trusting_it(tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    export_directions(directions(), str(path))
    content = torch.load(path, weights_only=True)
    assert list(content) == [d.id for d in directions()]
    first = content[directions()[0].id]
    assert torch.equal(first["vector"], directions()[0].vector_SCYX)
    assert first["metadata"]["window"] == [900, 300]
    json.dumps([entry["metadata"] for entry in content.values()])


@pytest.mark.parametrize("name", ["d.safetensors", "d.pt"])
def test_the_same_directions_are_the_same_bytes_in_another_process(
    name: str, tmp_path: Path
) -> None:
    export_directions(directions(), str(tmp_path / name))
    script = (
        "import sys; from lib.directions.direction_files import *\n"
        "export_directions(import_directions(sys.argv[1]), sys.argv[2])"
    )
    copy = tmp_path / f"other-{name}"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / name), str(copy)],
        check=True,
        cwd=Path(__file__).parents[3],
        env=os.environ | {"PYTHONHASHSEED": "77"},
    )
    assert copy.read_bytes() == (tmp_path / name).read_bytes()


def test_a_vector_that_is_a_view_is_exported_alone(tmp_path: Path) -> None:
    many_NSCYX = torch.nn.functional.normalize(torch.randn(100, 1, 4, 2, 3).flatten(1), dim=1)
    view = many_NSCYX.view(100, 1, 4, 2, 3)[7]
    export_directions([direction(1, vector_SCYX=view)], str(tmp_path / "d.pt"))
    assert (tmp_path / "d.pt").stat().st_size < 4000


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match=r"ends in \.safetensors"):
        export_directions(directions(), str(tmp_path / "d.npz"))
    with pytest.raises(ConfigProblem, match="got none"):
        export_directions([], str(tmp_path / "d.pt"))
    with pytest.raises(ConfigProblem, match="twice"):
        export_directions([direction(1), direction(1)], str(tmp_path / "d.pt"))
    assert not list(tmp_path.iterdir())


class Command:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("was-run",)


def test_pickled_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Command()}, tmp_path / "d.pt")
    with pytest.raises(ConfigProblem, match="could run code"):
        import_directions(str(tmp_path / "d.pt"))
    assert not (tmp_path / "was-run").exists()


@pytest.mark.parametrize("name", ["d.safetensors", "d.pt"])
def test_missing_truncated_and_foreign_files_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ConfigProblem, match="found none"):
        import_directions(str(path))
    export_directions(directions(), str(path))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigProblem, match="expected a whole"):
        import_directions(str(path))
    path.write_bytes(b"no such thing")
    with pytest.raises(ConfigProblem, match="expected a whole"):
        import_directions(str(path))
    bare = {"v": torch.ones(4, 2, 3)}
    if name.endswith("pt"):
        torch.save(bare, path)
    else:
        save_file(bare, path)
    with pytest.raises(ConfigProblem, match="import them as bare tensors"):
        import_directions(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vector": torch.full((1, 4, 2, 3), float("nan"))}, "unit norm"),
        ({"vector": torch.zeros(1, 4, 2, 3)}, "unit norm"),
        ({"vector": torch.ones(1, 4, 2, 3)}, "unit norm"),
        ({"vector": torch.ones(2, 4, 2, 3)}, "one for every timestep"),
        ({"vector": [1.0]}, "expected a vector"),
        ({"timesteps": "high"}, "got 'high'"),
        ({"rank": None}, "got None"),
        ({"colour": "red"}, r"unknown metadata \['colour'\]"),
    ],
)
def test_edited_metadata_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    export_directions([direction(1)], str(path))
    content = torch.load(path, weights_only=True)
    (entry,) = content.values()
    for key, value in change.items():
        (entry if key == "vector" else entry["metadata"])[key] = value
    torch.save(content, path)
    with pytest.raises(ConfigProblem, match=message):
        import_directions(str(path))


def test_missing_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.pt"
    export_directions([direction(1)], str(path))
    content = torch.load(path, weights_only=True)
    del next(iter(content.values()))["metadata"]["model"]
    torch.save(content, path)
    with pytest.raises(ConfigProblem, match="'model'"):
        import_directions(str(path))
