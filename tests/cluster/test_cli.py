"""The command line as a user meets it: exit codes, sentences, signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cluster.cli import main
from cluster.runner import run
from lib.demo.shards import write_shards
from lib.files.samples import read_shard
from lib.ledger.verification import verify
from pipelines.config import Input
from pipelines.config_file import load_config
from pipelines.inputs import expand_inputs, missing_inputs

pytestmark = pytest.mark.timeout(120)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return int(end.value.code or 0)


def test_help_lists_the_verbs_and_no_arguments_is_a_usage_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    for verb in ("demo", "plan", "run", "status", "verify", "finalize", "show"):
        assert verb in text
    assert call() == 2
    assert call("no-such-verb") == 2


def test_a_bad_config_is_exit_2_with_every_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("preset: demo\nedit: {strenghts: [1]}\ngrid: {num_steps: many}\n")
    for verb in ("run", "plan"):
        assert call(verb, str(path)) == 2
        text = capsys.readouterr().err
        assert "edit.strenghts: unknown key; did you mean `strengths`?" in text
        assert 'grid.num_steps: got "many", expected a whole number' in text
        assert "Traceback" not in text


def test_missing_inputs_are_exit_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = call("run", "demo", "--set", f"input.shards=['{tmp_path}/*.tar']", "--engine", "local")
    assert code == 2
    assert "no file matches" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_shards_none_of_which_is_there_are_refused_before_anything_begins(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    changes = (f"input.shards=['{tmp_path}/in/f-{{0..2}}.tar']", f"output.folder={tmp_path}/run")
    options = [part for change in changes for part in ("--set", change)]
    options += ["--set", "execution.engine=local", "--set", "execution.workers=1"]
    assert call(verb, "demo", *options) == 2
    text = capsys.readouterr().err
    assert "none of the 3 files is there" in text
    assert f"{tmp_path}/in/f-0.tar" in text
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_the_shards_that_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_shards(str(tmp_path), shards=1, faces_per_shard=1, seed=3)
    shards = f"input.shards=['{tmp_path}/faces-0000{{0..2}}.tar']"
    assert call("plan", "demo", "--set", shards, "--set", f"output.folder={tmp_path}/run") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "no file there │ 2, such as" in text


def test_a_finished_run_is_still_finished_when_its_shards_have_gone(
    toy_run: Any, toys: ModuleType
) -> None:
    toy_run.write(a={})
    assert toy_run.run(toys.ToyWorker).exit_code == 0
    gone = toy_run.root / "in" / "a.tar"
    gone.unlink()
    config = toy_run.config.model_copy(update={"input": Input(shards=(str(gone),))})
    assert run(config, factory=toys.ToyWorker, console=toy_run.console).exit_code == 0


def test_faces_alone_are_the_inputs_of_the_demos_presets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("demo", "--faces-only") == 0
    used: dict[str, list[bytes]] = {}
    for name in ("demo", "demo-library", "demo-held-out"):
        found = expand_inputs(load_config(name).input.shards)
        assert missing_inputs(found) == ()
        used[name] = [Path(shard.url).read_bytes() for shard in found]
        assert sorted(p.name for p in Path(found[0].url).parent.iterdir()) == [
            f"{shard.name}.tar" for shard in found
        ]
    assert used["demo"] == used["demo-library"]
    pictures = {
        name: {
            sample.files["png"]
            for data in shards
            for sample in read_shard(data, "s", max_bytes=10**9, salvage=False).samples
        }
        for name, shards in used.items()
    }
    assert (len(pictures["demo"]), len(pictures["demo-held-out"])) == (64, 16)
    assert not pictures["demo"] & pictures["demo-held-out"]


def test_an_address_without_ray_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", "demo", "--engine", "local", "--address", "h:1", "--workers", "1") == 2
    assert "--engine ray" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "ray", "--gpus-per-worker", "0.5"), "--gpus-per-worker"),
        (("--engine", "local", "--workers", "1"), "--engine ray"),
    ],
)
def test_workers_per_gpu_is_refused_beside_what_it_contradicts(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", "demo", "--workers-per-gpu", "2", *arguments) == 2
    assert said in capsys.readouterr().err
    assert call("run", "demo", "--workers-per-gpu", "0", "--engine", "ray") == 2


def test_a_folder_without_a_run_is_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in ("status", "verify", "finalize"):
        assert call(verb, str(tmp_path)) == 2
        assert "found no run.json" in capsys.readouterr().err


def test_the_reading_verbs_tell_how_a_run_ended(
    toy_run: Any, toys: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_run.write(a={}, b={"samples": 5}, bad={"do": "damage"})
    toy_run.run(toys.ToyWorker)
    root = toy_run.folder.root
    assert call("status", root) == 0
    text = capsys.readouterr().out
    assert "2 of 3 done" in text
    assert "0 ok, 7 errors" in text
    assert "ShardDamage: cut at" in text
    assert call("verify", root, "--deep") == 0
    assert "3 shards: 2 committed, 1 quarantined; 0 samples ok, 7 in errors" in (
        capsys.readouterr().out
    )
    assert call("finalize", root) == 0
    Path(toy_run.folder.commit_url("a")).unlink()
    assert call("verify", root) == 1
    assert "problem: " in capsys.readouterr().out


def test_a_run_with_nothing_left_to_do_loads_neither_torch_nor_ray_and_is_quick(
    toy_run: Any, toys: ModuleType, tmp_path: Path
) -> None:
    toy_run.write(a={}, b={})
    toy_run.run(toys.ToyWorker)
    config = tmp_path / "again.yaml"
    config.write_text(toy_run.config.model_dump_json())
    code = (
        "import sys\nfrom cluster.cli import main\n"
        f"try: main(['run', {str(config)!r}, '--engine', 'ray', '--workers', '7'])\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'ray'} & sys.modules.keys()\n"
    )
    begun = time.monotonic()
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert time.monotonic() - begun < 5
    assert "2 of 2 shards done" in ran.stdout
    assert ran.stderr == ""


@pytest.fixture
def short_temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short enough for Ray's sockets, and swept: a killed driver leaves its files behind."""
    folder = tempfile.mkdtemp(prefix="dt", dir="/tmp")
    monkeypatch.setenv("TMPDIR", folder)
    yield
    shutil.rmtree(folder, ignore_errors=True)


def begin(toy_run: Any, engine: str, *changes: str) -> subprocess.Popen[str]:
    script = Path(__file__).parent / "signalled_run.py"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    process = subprocess.Popen(
        [sys.executable, str(script), str(toy_run.root), engine, *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,  # so that, as on a terminal, all its children hear a Ctrl-C
    )
    deadline = time.monotonic() + 60
    while not toy_run.starts("s0") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert toy_run.starts("s0"), "it never began"
    return process


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_a_signal_finishes_what_is_in_flight_and_says_so(toy_run: Any, engine: str) -> None:
    toy_run.write(**{f"s{i}": {"seconds": 1.5} for i in range(30)})
    process = begin(toy_run, engine)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "SIGINT: finishing the" in err
    assert "Traceback" not in err + out
    done = toy_run.folder.committed()
    begun = {f"s{i}" for i in range(30) if toy_run.starts(f"s{i}")}
    assert done == begun, "all that was begun was finished, on the first try"
    assert all(len(toy_run.starts(name)) == 1 for name in begun)
    assert f"{len(done)} of 30 shards done" in out
    assert toy_run.events("run_finished")[0]["exit_code"] == 1


@pytest.mark.parametrize("engine", ["local", pytest.param("ray", marks=pytest.mark.ray)])
def test_shards_that_outlast_the_drain_are_released_uncommitted_and_uncharged(
    toy_run: Any, engine: str
) -> None:
    toy_run.write(s0={"seconds": 100}, s1={"seconds": 100}, s2={"seconds": 100})
    process = begin(toy_run, engine, "execution.drain_timeout_s=0.5")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "finishing the" in err
    assert "for up to 0.5 s" in err
    assert "releasing the" in err
    assert "stopped by SIGTERM (0 of 3 shards done" in out
    assert toy_run.folder.committed() == frozenset()
    assert toy_run.folder.quarantined_names() == frozenset()
    assert len(toy_run.events("released")) == 1


def test_a_second_signal_ends_at_once(toy_run: Any) -> None:
    toy_run.write(s0={"seconds": 60}, s1={"seconds": 60})
    process = begin(toy_run, "local")
    process.send_signal(signal.SIGTERM)
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "stopped at once" in out


@pytest.mark.ray
@pytest.mark.usefixtures("short_temp")
def test_after_the_driver_is_killed_the_same_command_goes_on(toy_run: Any) -> None:
    toy_run.write(**{f"s{i}": {"seconds": 0.5} for i in range(12)})
    process = begin(toy_run, "ray")
    time.sleep(1.0)
    process.kill()
    process.communicate(timeout=30)
    done = toy_run.folder.committed()
    assert len(done) < 12
    again = begin(toy_run, "ray")
    out, err = again.communicate(timeout=90)
    assert again.returncode == 0, err
    assert "12 of 12 shards done" in out
    starts = [len(toy_run.starts(f"s{i}")) for i in range(12)]
    assert sum(starts) <= 12 + 4 + 2, "at most what was in flight, and an orphan's last, is redone"
    assert verify(toy_run.folder, deep=True).ok
