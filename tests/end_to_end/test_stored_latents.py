"""A run from stored latents leaves the bytes of the run that stored them, and inverts nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from rich.console import Console

from cluster.runner import run
from cluster.scheduling.orders import Rules
from cluster.settlement import Outcome
from lib.ledger.run_folder import RunConflict, RunFolder
from lib.ledger.verification import verify
from lib.models.checkpoint import open_checkpoint
from lib.problems import ConfigProblem
from lib.sampling.ddim_sampler import DdimSampler
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.plan import make_plan
from pipelines.stored_runs import config_timesteps, latent_bytes

SHARDS, PICTURES = 3, 3
TOP = 832
"""Of 6 steps 166 332 499 666 832 999, the highest in the window."""
LABELS = ("index", "image_sha256")
SAME = ("images", "directions", "errors", "statistics", "merged")
"""Folders of a run whose bytes do not tell whether latents were read."""
MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def inputs(shards: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Shards of masked pictures; sample 1 of shard 0 is no image, sample 2 of shard 1 has no
    mask.
    """
    folder = tmp_path_factory.mktemp("latents") / "in"
    for number in range(SHARDS):
        members = shards.samples(PICTURES, first=100 * number, masked=True)
        if number == 0:
            members[2:3] = [(members[2][0], b"words")]
        if number == 1:
            members.pop()
        shards.write_tar(folder / f"in-{number}.tar", members)
    return str(folder / "in-*.tar")


def config_of(
    shards: ModuleType, checkpoint: Path, inputs: str, folder: Path, pipeline: str, **sections: Any
) -> RunConfig:
    part = {"segment": {"regions": {"part": {"file": "part.png"}}}}
    discover = sections.pop("discover", {})
    made = shards.config(checkpoint, inputs, folder, **(part | sections)).model_dump(mode="json")
    if discover.get("method") not in ("pca", "none"):
        discover = made["discover"] | discover
    return RunConfig.model_validate(made | {"pipeline": pipeline, "discover": discover})


@pytest.fixture
def make(tiny_checkpoint: Path, shards: ModuleType, inputs: str, tmp_path: Path) -> MakeConfig:
    def make(name: str, pipeline: str = "edit_dataset", **sections: Any) -> RunConfig:
        folder = tmp_path / name
        return config_of(shards, tiny_checkpoint, inputs, folder, pipeline, **sections)

    return make


def drive(made: RunConfig, exit_code: int = 0) -> Outcome:
    """Run to the end, and prove it."""
    rules = Rules(workers=made.execution.workers, retry_pause_s=0.05)
    outcome = run(made, console=Console(quiet=True), rules=rules)
    assert outcome.exit_code == exit_code, outcome.sentence
    assert verify(RunFolder(made.output.folder), deep=True).problems == ()
    return outcome


def results(shards: ModuleType, folder: str | Path) -> dict[str, str]:
    """What must be the same, with and without stored latents."""
    found = shards.hashes(Path(folder))
    return {name: sha256 for name, sha256 in found.items() if name.split("/")[0] in SAME}


def rows_of(folder: str | Path) -> list[dict[str, Any]]:
    (manifest,) = (Path(folder) / "manifest").glob("[es][da]*-00000.parquet")
    return pq.read_table(manifest).to_pylist()


def latents_of(folder: str | Path) -> dict[str, dict[str, np.ndarray]]:
    paths = sorted((Path(folder) / "latents").iterdir())
    return {path.name.rpartition("-")[0]: safetensors.numpy.load_file(path) for path in paths}


@pytest.fixture(scope="module")
def stored(
    tiny_checkpoint: Path,
    shards: ModuleType,
    inputs: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An edit run that stored its latents in float32."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    made = config_of(
        shards, tiny_checkpoint, inputs, folder, "edit_dataset",
        output={"folder": str(folder), "latents": "float32"}, invert={"keep": [700]},
    )  # fmt: skip
    drive(made)
    return folder


@pytest.fixture
def evaluated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The images of every noise prediction that inversion asks for."""
    asked: list[int] = []
    invert = DdimSampler.invert

    def counted(self: DdimSampler, predict: Any, *arguments: Any, **options: Any) -> Any:
        def noted(x_BLYX: Any, t: int) -> Any:
            asked.append(len(x_BLYX))
            return predict(x_BLYX, t)

        return invert(self, noted, *arguments, **options)

    monkeypatch.setattr(DdimSampler, "invert", counted)
    return asked


def test_storing_in_full_precision_changes_no_byte(
    make: MakeConfig, stored: Path, shards: ModuleType
) -> None:
    plain = make("plain")
    drive(plain)
    assert results(shards, plain.output.folder) == results(shards, stored)
    assert (
        RunFolder(plain.output.folder).read_run()["fingerprint"]
        == (RunFolder(str(stored)).read_run()["fingerprint"])
    )


def test_a_run_from_stored_latents_leaves_the_same_bytes_and_inverts_nothing(
    make: MakeConfig, stored: Path, shards: ModuleType, evaluated: list[int]
) -> None:
    made = make("again", invert={"latents": str(stored)})
    planned = make_plan(made, expand_inputs(made.input.shards))
    drive(made)
    assert evaluated == []
    assert results(shards, made.output.folder) == results(shards, stored)
    assert not (Path(made.output.folder) / "latents").exists()
    before, after = rows_of(stored), rows_of(made.output.folder)
    saved = {
        b["network_evaluations"] - a["network_evaluations"]
        for a, b in zip(after, before, strict=True)
    }
    assert saved == {5}
    assert planned.inversion == 0
    assert {row["network_evaluations"] for row in after} == {planned.evaluations}


def test_the_file_holds_x_t_of_every_image_that_was_inverted(stored: Path) -> None:
    found = latents_of(stored)
    assert {name: list(a["index"]) for name, a in found.items()} == {
        "in-0": [0, 2], "in-1": [0, 1, 2], "in-2": [0, 1, 2],
    }  # fmt: skip
    for arrays in found.values():
        count = len(arrays["index"])
        assert arrays["states"].shape == (count, 1, 3, 16, 16)
        assert arrays["states"].dtype == np.float32
        assert {n for n in arrays if n.startswith("x/")} == {"x/332", "x/666"}


def test_rounded_latents_are_those_from_which_both_runs_edit(
    make: MakeConfig, stored: Path, shards: ModuleType, evaluated: list[int]
) -> None:
    half = make("half", output={"folder": make("half").output.folder, "latents": "float16"})
    drive(half)
    assert evaluated
    evaluated.clear()
    made = make("again", invert={"latents": half.output.folder})
    drive(made)
    assert evaluated == []
    assert results(shards, made.output.folder) == results(shards, half.output.folder)
    assert results(shards, made.output.folder) != results(shards, stored)
    whole, rounded = latents_of(stored), latents_of(half.output.folder)
    for name, arrays in rounded.items():
        np.testing.assert_array_equal(arrays["states"], whole[name]["states"].astype(np.float16))
    sizes = [sum(p.stat().st_size for p in (Path(f) / "latents").iterdir())
             for f in (stored, half.output.folder)]  # fmt: skip
    assert sizes[1] < sizes[0] / 2, "half of the numbers, and x_666 is not stored there"


@pytest.mark.parametrize(
    ("way", "dtype"), [("edict", np.float64), ("bdia", np.float64), ("ddpm", np.float32)]
)
def test_every_way_of_inversion_can_be_stored(
    make: MakeConfig, shards: ModuleType, way: str, dtype: type
) -> None:
    plain = make("plain", invert={"method": way})
    drive(plain)
    for name in ("float32", "float16"):
        output = {"folder": make(name).output.folder, "latents": name}
        storing = make(name, invert={"method": way}, output=output)
        drive(storing)
        made = make(f"from-{name}", invert={"method": way, "latents": storing.output.folder})
        drive(made)
        assert results(shards, made.output.folder) == results(shards, storing.output.folder)
        same = results(shards, made.output.folder) == results(shards, plain.output.folder)
        assert same == (name == "float32")
        expected = dtype if name == "float32" else np.float16
        found = latents_of(storing.output.folder)
        assert {arrays["states"].dtype.type for arrays in found.values()} == {expected}
        assert {"noise/166", "noise/832"} <= set(found["in-0"]) or way != "ddpm"
        an_image = sum(a[0].nbytes for name, a in found["in-0"].items() if name not in LABELS)
        checkpoint = open_checkpoint(storing.model.checkpoint)
        assert latent_bytes(storing, checkpoint, config_timesteps(storing)) == an_image


def test_latents_serve_other_strengths_methods_and_pipelines(
    make: MakeConfig, stored: Path, shards: ModuleType, evaluated: list[int]
) -> None:
    changes: list[tuple[str, dict[str, Any]]] = [
        ("edit_dataset", {"edit": {"strengths": [0.3]}}),
        ("edit_dataset", {"edit": {"window": [700, 300]}}),
        ("edit_dataset", {"discover": {"method": "jacobian", "space": "x", "timesteps": [832]}}),
        ("direction_library", {"discover": {"method": "jacobian", "timesteps": [666, 332]}}),
        ("direction_library", {"discover": {"method": "pca", "components": 2,
                                            "timesteps": [666, 332]}}),
    ]  # fmt: skip
    for number, (pipeline, sections) in enumerate(changes):
        plain = make(f"plain-{number}", pipeline, **sections)
        drive(plain)
        evaluated.clear()
        made = make(f"from-{number}", pipeline, invert={"latents": str(stored)}, **sections)
        drive(made)
        assert evaluated == []
        assert results(shards, made.output.folder) == results(shards, plain.output.folder)
        assert results(shards, made.output.folder)


def test_a_run_may_do_nothing_but_store(
    make: MakeConfig, stored: Path, shards: ModuleType, evaluated: list[int]
) -> None:
    folder = make("only").output.folder
    only = make(
        "only", "store_latents", output={"folder": folder, "latents": "float32"},
        invert={"keep": [368, 999]},
    )  # fmt: skip
    planned = make_plan(only, expand_inputs(only.input.shards))
    drive(only)
    assert planned.evaluations == planned.inversion == 6
    assert {row["network_evaluations"] for row in rows_of(folder)} == {6}
    assert len(rows_of(folder)) == SHARDS * PICTURES - 1
    bytes_ = sum(path.stat().st_size for path in (Path(folder) / "latents").iterdir())
    assert planned.output.results / 1.5 < bytes_ < planned.output.results * 1.5
    assert {name.split("/")[0] for name in shards.files(Path(folder))} == {
        "README.md", "commit", "drivers", "errors", "events", "index.json", "inputs.json",
        "latents", "manifest", "model.json", "run.json",
    }  # fmt: skip
    evaluated.clear()
    made = make("again", invert={"latents": folder})
    drive(made)
    assert evaluated == []
    assert results(shards, made.output.folder) == results(shards, stored)


def test_what_does_not_fit_is_refused_before_work_starts(
    make: MakeConfig, stored: Path, tmp_path: Path
) -> None:
    from_stored = {"latents": str(stored)}
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("no run.json", {"invert": {"latents": str(tmp_path / "nowhere")}}),
        (r"grid\.num_steps: 6 / 7", {"grid": {"num_steps": 7}, "invert": from_stored}),
        (r"invert\.refinements: 0 / 1", {"invert": from_stored | {"refinements": 1}}),
        (r'input\.fit: "crop" / "stretch"', {"input": {"fit": "stretch"}, "invert": from_stored}),
        (r"model\.weights_sha256", {"model": {"checkpoint": "embedded"}, "invert": from_stored}),
        ("decoding begins at timestep 999, .* those of 832 and x_t at",
         {"edit": {"window": [999, 300]}, "invert": from_stored}),
        ("decoding begins at timestep 499",
         {"edit": {"window": [500, 300]}, "invert": from_stored}),
        (r"discovery needs x_t at \[499\], .* invert\.keep: \[499\]",
         {"discover": {"timesteps": [499]}, "invert": from_stored}),
    ]  # fmt: skip
    for pattern, sections in refusals:
        if "input" in sections:
            sections["input"] |= {"shards": list(make("x").input.shards)}
        made = make("refused", **sections)
        with pytest.raises(ConfigProblem, match=pattern):
            run(made, console=Console(quiet=True))
        assert not Path(made.output.folder).exists()


def test_a_run_without_latents_is_no_source(make: MakeConfig) -> None:
    plain = make("plain")
    drive(plain)
    with pytest.raises(ConfigProblem, match="stores no latents"):
        run(make("again", invert={"latents": plain.output.folder}), console=Console(quiet=True))
    storing = plain.model_copy(
        update={"output": plain.output.model_copy(update={"latents": "float32"})}
    )
    with pytest.raises(RunConflict, match=r'stores\.latents: "none" / "float32"'):
        run(storing, console=Console(quiet=True))


def test_config_mistakes_have_a_sentence(make: MakeConfig) -> None:
    folder = make("x").output.folder
    with pytest.raises(ValueError, match=r"invert\.keep: is for stored latents"):
        make("x", invert={"keep": [300]})
    with pytest.raises(ValueError, match=r"expected none with invert\.latents"):
        make("x", invert={"latents": "a"}, output={"folder": folder, "latents": "float16"})
    with pytest.raises(ValueError, match="expected float32 or float16 with store_latents"):
        make("x", "store_latents")
    output = {"folder": folder, "latents": "float32"}
    sdedit = {"edit": {"method": "sdedit"}, "discover": {"method": "none"}}
    with pytest.raises(ValueError, match="sdedit inverts nothing; expected no latents"):
        make("x", output=output, **sdedit)


def test_a_changed_a_missing_and_a_damaged_shard_are_quarantined_with_a_sentence(
    make: MakeConfig, stored: Path, shards: ModuleType, inputs: str, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(stored, source)
    (source / "commit" / "in-1.parquet").unlink()
    (damaged,) = (source / "latents").glob("in-2-*")
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert any(
        f"latents/{damaged.name} does not have the content" in problem
        for problem in verify(RunFolder(str(source)), deep=True).problems
    )
    folder = tmp_path / "in"
    shutil.copytree(Path(inputs).parent, folder)
    shards.write_tar(folder / "in-0.tar", shards.samples(PICTURES, first=50, masked=True))
    made = make("again", invert={"latents": str(source)}, input={"shards": [f"{folder}/*.tar"]})
    drive(made, exit_code=3)
    quarantined = RunFolder(made.output.folder).quarantined()
    assert "and its latents in" in quarantined["in-0"]
    assert "is not committed in" in quarantined["in-1"]
    assert f"latents/{damaged.name} does not have the content" in quarantined["in-2"]


def test_a_storing_run_that_was_killed_and_resumed_stores_the_same_bytes(
    make: MakeConfig, stored: Path, shards: ModuleType, tmp_path: Path
) -> None:
    folder = RunFolder(make("killed").output.folder)
    made = make(
        "killed", output={"folder": folder.root, "latents": "float32"}, invert={"keep": [700]}
    )
    config = shards.write_config(tmp_path / "run.yaml", made)
    process = subprocess.Popen(
        shards.command("run", config),
        env=shards.environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 100
    while not folder.committed() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    assert folder.committed(), "it had begun"
    drive(made)
    assert _all(shards, folder.root) == _all(shards, stored)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    from cluster.pools.ray_session import Resources, ray_session

    with ray_session("local", 2, Resources(gpus=0.0, threads=1)):
        yield


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_two_workers_on_ray_store_and_read_the_same_bytes(
    make: MakeConfig, stored: Path, shards: ModuleType, ray_here: None
) -> None:
    ray = {"engine": "ray", "device": "cpu", "workers": 2}
    folder = make("ray").output.folder
    storing = make(
        "ray", output={"folder": folder, "latents": "float32"}, invert={"keep": [700]},
        execution=ray,
    )  # fmt: skip
    drive(storing)
    assert _all(shards, folder) == _all(shards, stored)
    made = make("again", invert={"latents": folder}, execution=ray)
    drive(made)
    assert results(shards, made.output.folder) == results(shards, stored)


def _all(shards: ModuleType, folder: str | Path) -> dict[str, str]:
    """Latents, commits and all else that the config decides."""
    latents = {p.name: p.read_bytes().hex() for p in (Path(folder) / "latents").iterdir()}
    return shards.hashes(Path(folder)) | latents
