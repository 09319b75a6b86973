"""The one arrow between the folders, and what the command line may load."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_IMPORT = {
    "lib": {"lib"},
    "tasks": {"lib", "tasks"},
    "pipelines": {"lib", "tasks", "pipelines"},
    "cluster": {"lib", "tasks", "pipelines", "cluster"},
}
HEAVY = ("torch", "ray", "diffusers", "transformers")


def imported(path: Path) -> set[str]:
    """Every dotted module name that the file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(str(node.module))
    return names


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_nothing_imports_upward(folder: str) -> None:
    for path in sources(folder):
        ours = {name.split(".")[0] for name in imported(path)} & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[folder], path


def test_tasks_do_not_import_each_other() -> None:
    for path in sources("tasks"):
        others = {name for name in imported(path) if name.startswith("tasks.")}
        assert not others, path


@pytest.mark.parametrize("folder", ["lib", "tasks", "pipelines"])
def test_only_cluster_imports_ray(folder: str) -> None:
    for path in sources(folder):
        assert "ray" not in {name.split(".")[0] for name in imported(path)}, path


def test_ray_is_never_joined_without_an_address_nor_stopped() -> None:
    for path in sources("cluster"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "ray.init":
                assert any(keyword.arg == "address" for keyword in node.keywords), path
        assert '"ray", "stop"' not in path.read_text(), path


def loaded_by(code: str) -> set[str]:
    """Which of the heavy modules are loaded after `code` ran in a fresh process."""
    report = f"print('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\n{report}"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=True,
    )
    return set(ran.stdout.rpartition("LOADED")[2].split())


CALL = """
from cluster.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
"""


@pytest.mark.parametrize(
    "code",
    [
        "import cluster.cli",
        "import cluster.runner, cluster.views.status, cluster.pools.local_pool",
        CALL.format(arguments=["--help"]),
        CALL.format(arguments=["run", "--help"]),
    ],
)
def test_the_command_line_loads_neither_torch_nor_ray(code: str) -> None:
    assert loaded_by(code) == set()


def test_plan_loads_neither_torch_nor_ray(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(b"")
    arguments = [
        "plan",
        "demo",
        "--set",
        f"input.shards=[{shard}]",
        "--set",
        f"output.folder={tmp_path}/run",
    ]
    assert loaded_by(CALL.format(arguments=arguments)) == set()


@pytest.mark.parametrize("form", [["--slurm"], ["--kuberay", "--image", "i"]])
def test_writing_a_job_down_loads_neither_torch_nor_ray(form: list[str]) -> None:
    assert loaded_by(CALL.format(arguments=["submit", "demo", *form])) == set()


def test_submitting_loads_no_torch() -> None:
    modules = "verbs.submission, cluster.views.jobs, cluster.submission.ray_job"
    assert loaded_by(f"import ray.job_submission, cluster.{modules}") == {"ray"}
