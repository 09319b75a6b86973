"""Batch scripts for Slurm: what they say, and what they do where two "nodes" run them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from cluster.submission import slurm
from cluster.submission.slurm import Nodes, batch_script
from cluster.submission.travelling_config import travelling
from lib.ledger.run_folder import RunFolder
from lib.ledger.verification import verify
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.config_file import load_config

pytestmark = pytest.mark.timeout(400)

FAKES = Path(__file__).parent / "slurm"
SHELLCHECK = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
NODES = Nodes("faces", count=2, array=False, drain_s=300, retry_quarantined=False)


def config(*changes: str) -> RunConfig:
    return travelling(load_config("demo", ["execution.engine=ray", *changes]))


def directives(script: str) -> dict[str, str]:
    """What Slurm reads: `#SBATCH` lines before the first command."""
    head = script.split("set -euo", 1)[0]
    return dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(.*))?$", head, flags=re.MULTILINE))


def begin(script: Path, messages: Path, **variables: str) -> subprocess.Popen[str]:
    """As slurmd begins a batch script: bash, and the job in the environment."""
    return subprocess.Popen(
        ["bash", str(script)],
        env=os.environ
        | {"PATH": f"{FAKES}:{os.environ['PATH']}", "FAKE_SLURM": str(messages)}
        | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(SHELLCHECK is None, reason="no shellcheck is installed")
@pytest.mark.parametrize("array", [False, True])
@pytest.mark.parametrize("gpus", [0, 1])
def test_shellcheck_has_nothing_to_say(tmp_path: Path, array: bool, gpus: int) -> None:
    made = config("execution.workers=4", f"execution.gpus_per_worker={gpus}")
    script = tmp_path / "job.sh"
    script.write_text(batch_script(made, replace(NODES, array=array, retry_quarantined=True)))
    own = [FAKES / name for name in ("two_nodes.sh", "srun", "scontrol")]
    ran = subprocess.run(
        [str(SHELLCHECK), str(script), *map(str, own)], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "")


def test_the_nodes_hold_the_workers_and_their_gpus() -> None:
    made = config("execution.workers=16", "execution.gpus_per_worker=0.5")
    asked = directives(batch_script(made, NODES))
    assert (asked["nodes"], asked["gpus-per-node"]) == ("2", "4")
    assert "exclusive" in asked
    assert asked["signal"] == "B:USR1@300"
    apart = batch_script(made, replace(NODES, array=True))
    asked = directives(apart)
    assert (asked["array"], asked["nodes"], asked["gpus-per-node"]) == ("0-1", "1", "4")
    assert "  workers: 8\n" in apart
    assert "--address local" in apart


def test_without_gpus_none_are_asked_for_and_one_worker_a_task_needs_no_ray() -> None:
    script = batch_script(config("execution.workers=2"), replace(NODES, array=True))
    assert "gpus-per-node" not in directives(script)
    assert "  engine: local\n" in script
    assert "--address" not in script


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (replace(NODES, count=3), "a multiple of the 3 nodes, got 4"),
        (replace(NODES, name="a b"), "a b"),
    ],
)
def test_what_slurm_could_not_do_is_refused(nodes: Nodes, said: str) -> None:
    with pytest.raises(ConfigProblem, match=said):
        batch_script(config("execution.workers=4"), nodes)


def test_any_text_of_config_and_paths_stays_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script is run with a Python that only says what it was given."""
    programs, project = tmp_path / "my 'programs'; $(id)", tmp_path / "the $HOME `project`"
    programs.mkdir()
    python = programs / "python"
    python.write_text('#!/bin/bash\nprintf "%s\\n" "$PYTHONPATH" "$@"\ncat "$4"\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(slurm, "PROJECT_ROOT", project)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = "/data/$(touch pwned) 'a' \"b\"\nEND_OF_CONFIG\ntouch pwned"
    made = config("execution.workers=2")
    output = made.output.model_copy(update={"folder": folder})
    made = made.model_copy(update={"output": output})
    script = tmp_path / "job.sh"
    script.write_text(batch_script(made, replace(NODES, array=True)))
    ran = subprocess.run(
        ["bash", str(script)],
        env=os.environ | {"SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    said = ran.stdout.split("\n", 6)
    assert said[:4] == [str(project), "-m", "cluster", "run"]
    assert said[5] == "--shard-of"
    (tmp_path / "sent.yaml").write_text(ran.stdout[ran.stdout.index("pipeline:") :])
    again = load_config(str(tmp_path / "sent.yaml"))
    assert again.output.folder == folder
    assert not list(tmp_path.glob("**/pwned"))


def test_a_task_of_the_array_near_its_time_limit_drains_is_queued_again_and_goes_on(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 12, 3)
    made = shards.config(
        tiny_checkpoint, pattern, tmp_path / "run", execution={"engine": "ray", "workers": 2}
    )
    script, folder = tmp_path / "job.sh", RunFolder(str(tmp_path / "run"))
    script.write_text(batch_script(travelling(made), replace(NODES, array=True)))
    tasks = [
        begin(script, tmp_path, SLURM_JOB_ID=f"{70 + number}", SLURM_ARRAY_TASK_ID=str(number))
        for number in range(2)
    ]
    deadline = time.monotonic() + 120
    while not (own := folder.committed() & {f"in-{n}" for n in (0, 1, 11, 3, 5, 7)}):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    tasks[0].send_signal(signal.SIGUSR1)  # to the shell alone, as --signal=B: does
    said = [task.communicate(timeout=120)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [1, 0], said
    assert "SIGTERM: finishing the" in said[0]
    assert (tmp_path / "scontrol").read_text() == "requeue 70\n"
    assert own <= folder.committed()
    assert len(folder.committed()) < 12

    again = begin(script, tmp_path, SLURM_JOB_ID="70", SLURM_ARRAY_TASK_ID="0")
    assert "12 of 12 shards done" in again.communicate(timeout=120)[0]
    assert again.returncode == 0
    found = verify(folder, deep=True)
    assert (found.problems, found.notes, found.samples_ok) == ((), (), 36)
    starts = [event["shard"] for event in shards.events(tmp_path / "run", "shard_started")]
    assert len(starts) == len(set(starts)) == 12, "none was begun twice"
    assert not list(Path("/tmp").glob("deltah-????????/driver")), "it cleans up"


def unshared() -> list[str]:
    """Begins a command in namespaces of its own; [] where this machine does not allow that."""
    flags = ["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    prefix = ["unshare", *([] if os.geteuid() == 0 else ["--map-root-user"]), *flags]
    trial = "mount -t tmpfs tmpfs /run && ip netns add trial && ip link add trial0 type bridge"
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return []
    tried = subprocess.run([*prefix, "sh", "-c", trial], capture_output=True, check=False)
    return prefix if tried.returncode == 0 else []


UNSHARED = unshared()


@pytest.mark.ray
@pytest.mark.skipif(not UNSHARED, reason="this machine lends no network namespaces")
def test_symmetric_run_makes_one_cluster_of_two_nodes_and_both_work(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    pattern = shards.write_shards(tmp_path / "in", 6, 3)
    made = shards.config(
        tiny_checkpoint, pattern, tmp_path / "run", execution={"engine": "ray", "workers": 2}
    )
    script = tmp_path / "job.sh"
    script.write_text(batch_script(travelling(made), NODES))
    job = str(os.getpid())
    ran = subprocess.run(
        [*UNSHARED, "bash", str(FAKES / "two_nodes.sh"), str(tmp_path), str(script)],
        env=os.environ
        # symmetric-run itself must outlive the head that it stops, by up to 16 s
        | {"SLURM_JOB_ID": job, "RAY_gcs_rpc_server_reconnect_timeout_s": "25"},
        capture_output=True,
        text=True,
        check=False,
        timeout=350,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6 of 6 shards done" in ran.stdout
    found = verify(RunFolder(str(tmp_path / "run")), deep=True)
    assert (found.problems, found.notes, found.samples_ok) == ((), (), 18)
    hosts = {event["host"] for event in shards.events(tmp_path / "run", "worker_ready")}
    assert hosts == {"node1", "node2"}
    assert not Path(f"/tmp/dh{job}").exists(), "it cleans up"
