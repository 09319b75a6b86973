"""The code that goes to a cluster whose machines do not have it.

What goes is named, not what stays: the four packages with their data files, among them the embedded
model. Nothing else that lies in the checkout (.git, environments, outputs, other weights) can slip
in, and no ignore list can take `lib/` out.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.installation import PROJECT_ROOT
from lib.problems import Problem
from lib.provenance import COMMIT_FILE, git_commit
from pipelines.number_texts import size

PACKAGES = ("lib", "tasks", "pipelines", "cluster")
LIMIT_BYTES = 100_000_000
"""The project has a tenth of it; Ray itself takes some 500 MB."""

_LARGEST = 5


class PackageTooLarge(Problem):
    """Something that is no code lies in the packages."""


@dataclass(frozen=True, slots=True)
class CodePackage:
    """Files of the project, relative to its root, sorted."""

    root: Path
    files: tuple[Path, ...]

    @property
    def total_bytes(self) -> int:
        """Before compression."""
        return sum((self.root / file).stat().st_size for file in self.files)

    def copy_to(self, folder: Path) -> None:
        """Write the files below `folder`, with the commit they are from."""
        for file in self.files:
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / file, target)
        (folder / COMMIT_FILE).write_text(f"{git_commit() or ''}\n")

    def __str__(self) -> str:
        return f"{len(self.files):,} files, {size(self.total_bytes)}"


def code_package(root: Path = PROJECT_ROOT, limit_bytes: int = LIMIT_BYTES) -> CodePackage:
    """What a cluster needs to run this very code.

    Raises:
        PackageTooLarge: names the largest files.

    """
    package = CodePackage(root, tuple(sorted(_files(root))))
    if package.total_bytes > limit_bytes:
        sizes = {file: (root / file).stat().st_size for file in package.files}
        largest = sorted(sizes, key=lambda file: -sizes[file])[:_LARGEST]
        raise PackageTooLarge(
            f"expected at most {size(limit_bytes)} of code and data in {', '.join(PACKAGES)} below"
            f" {root}, got {size(package.total_bytes)}; the largest are"
            f" {', '.join(f'{file} ({size(sizes[file])})' for file in largest)}; move what is not"
            " part of deltah elsewhere, or use --installed with an image that has deltah"
        )
    return package


def _files(root: Path) -> Iterator[Path]:
    for package in PACKAGES:
        for path in (root / package).rglob("*"):
            file = path.relative_to(root)
            hidden = any(part.startswith(".") for part in file.parts)
            if path.is_file() and not hidden and "__pycache__" not in file.parts:
                yield file
