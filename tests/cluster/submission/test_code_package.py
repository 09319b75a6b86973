"""What is sent to a cluster: all that runs, and nothing that merely lies there."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cluster.submission.code_package import PACKAGES, PackageTooLarge, code_package
from lib.provenance import git_commit

ROOT = Path(__file__).resolve().parents[3]


def checkout(root: Path) -> Path:
    for package in PACKAGES:
        (root / package / "inner").mkdir(parents=True)
        (root / package / "inner" / "code.py").write_text("x = 1\n")
    return root


def test_the_packages_with_their_data_are_in_it_lib_and_the_embedded_weights_among_them() -> None:
    sent = set(map(str, code_package().files))
    assert "lib/files/storage.py" in sent
    assert "lib/demo/model/unet/diffusion_pytorch_model.safetensors" in sent
    assert "cluster/submission/templates/rayjob.yaml.j2" in sent
    tracked = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert set(tracked) <= sent, "as git has it"


def test_no_ignore_list_takes_lib_out() -> None:
    """The usual Python .gitignore does; git and Ray's own packaging both obey it."""
    ran = subprocess.run(
        ["git", "check-ignore", "--no-index", "lib/new.py", "lib/demo/model/new.safetensors"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout == ""


def test_the_wheel_has_the_same_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.rstrip("*") for name in included} == set(PACKAGES)


def test_what_lies_around_stays(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    for stray in (
        ".git/config",
        ".venv/lib/site.py",
        "demo-output/run/images/a.tar",
        "models/celebahq/diffusion_pytorch_model.safetensors",
        "lib/__pycache__/code.cpython-311.pyc",
        "lib/.ipynb_checkpoints/code.py",
        "tests/test_a.py",
        "notes.txt",
    ):
        (root / stray).parent.mkdir(parents=True, exist_ok=True)
        (root / stray).write_text("stray")
    sent = {str(file) for file in code_package(root).files}
    assert sent == {f"{package}/inner/code.py" for package in PACKAGES}


def test_too_much_is_refused_naming_the_largest(tmp_path: Path) -> None:
    root = checkout(tmp_path)
    (root / "lib" / "weights.safetensors").write_bytes(bytes(3_000))
    (root / "tasks" / "small.bin").write_bytes(bytes(900))
    with pytest.raises(PackageTooLarge) as refused:
        code_package(root, limit_bytes=2_000)
    text = str(refused.value)
    assert "the largest are lib/weights.safetensors (3 kB), tasks/small.bin (900 bytes)" in text
    assert "--installed" in text


def test_a_copy_runs_and_knows_the_commit_it_is_of(tmp_path: Path) -> None:
    code_package().copy_to(tmp_path)
    code = "from lib.provenance import git_commit; import lib; print(git_commit(), lib.__file__)"
    ran = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == [str(git_commit()), str(tmp_path / "lib" / "__init__.py")]
