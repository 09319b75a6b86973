"""Which code made a run: package versions and git commit, read without importing the packages."""

from __future__ import annotations

import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

COMMIT_FILE = "git-commit.txt"
"""Beside the packages where they were copied out of a checkout: the commit they are of."""

_PACKAGES = ("deltah", "diffusers", "numpy", "pillow", "pyarrow", "safetensors", "torch")


@cache
def package_versions() -> tuple[tuple[str, str], ...]:
    """(name, version) of Python and of every package that can change a byte of the output, sorted.

    A package that is not installed is absent.
    """
    versions = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return tuple(sorted(versions.items()))


def git_commit() -> str | None:
    """The commit of the checkout this code runs from or was copied from, `-dirty` behind it if
    files differ; None where nobody knows.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        copied = root / COMMIT_FILE
        return (copied.read_text().strip() or None) if copied.is_file() else None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
