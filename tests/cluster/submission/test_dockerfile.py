"""The Dockerfile, without Docker: what it copies, and its steps one by one in a clean Debian."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pathspec
import pytest
from dockerfile_parse import DockerfileParser

from cluster.submission.code_package import PACKAGES
from cluster.submission.kuberay import IMAGE_USER

ROOT = Path(__file__).resolve().parents[3]
UNSHARED = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


def steps() -> list[tuple[str, str]]:
    """Instruction and value, lines joined."""
    parsed = DockerfileParser(fileobj=io.BytesIO((ROOT / "Dockerfile").read_bytes()))
    found = [(step["instruction"], step["value"]) for step in parsed.structure]
    return [step for step in found if step[0] != "COMMENT"]


def sent_to_the_builder() -> set[str]:
    """What .dockerignore leaves of the files of this checkout that git has."""
    text = (ROOT / ".dockerignore").read_text()
    # Docker takes a pattern from the top of the checkout, git at any depth unless it has a slash
    lines = [re.sub(r"^(!?)(?=[^*#!]|\*$)", r"\1/", line) for line in text.splitlines()]
    ignored = pathspec.GitIgnoreSpec.from_lines(lines)
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name for name in listed.stdout.splitlines() if not ignored.match_file(name)}


def test_the_image_has_the_packages_and_nothing_else_of_the_checkout() -> None:
    sources = {
        source
        for instruction, value in steps()
        if instruction == "COPY"
        for source in shlex.split(value)[:-1]
    }
    assert set(PACKAGES) <= sources
    sent = sent_to_the_builder()
    assert {name.split("/")[0] for name in sent} == sources
    assert "lib/demo/model/unet/diffusion_pytorch_model.safetensors" in sent


def test_python_and_ray_are_those_that_the_tests_ran_with() -> None:
    (base,) = (value for instruction, value in steps() if instruction == "FROM")
    assert base.startswith(f"python:{sys.version_info.major}.{sys.version_info.minor}-")
    assert "ray==2.60.0" in (ROOT / "constraints.txt").read_text().split()
    installs = [value for _, value in steps() if "pip install" in value]
    assert all("--constraint constraints.txt" in value for value in installs)


def test_it_runs_as_the_user_that_the_pods_ask_for() -> None:
    (user,) = (value for instruction, value in steps() if instruction == "USER")
    assert int(user) == IMAGE_USER


@dataclass
class Image:
    """A folder that the steps of a Dockerfile have been carried out in."""

    root: Path
    mounts: list[str]
    arguments: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: int = 0
    entrypoint: list[str] = field(default_factory=list)

    def carry_out(self, instruction: str, value: str) -> None:
        match instruction:
            case "FROM":
                pass  # the clean Debian stands for it
            case "ARG":
                name, _, given = value.partition("=")
                self.arguments[name] = given
            case "ENV":
                self.environment |= dict(part.split("=", 1) for part in shlex.split(value))
            case "WORKDIR":
                self.folder = value
                self.inside(value).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = int(value)
            case "COPY":
                *sources, target = shlex.split(value)
                self.copy(sources, self.inside(os.path.join(self.folder, target)))
            case "RUN":
                self.run(["/bin/sh", "-c", value], self.arguments)
            case "ENTRYPOINT":
                self.entrypoint = json.loads(value)
            case "CMD":
                pass
            case _:
                raise AssertionError(f"no way to carry out {instruction}")

    def inside(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def copy(self, sources: list[str], target: Path) -> None:
        """As COPY does: a folder's contents into `target`, a file into the folder `target`."""
        for name in sorted(sent_to_the_builder()):
            for source in sources:
                if name == source:
                    shutil.copy(ROOT / name, target)
                elif name.startswith(f"{source}/"):
                    to = target / name.removeprefix(f"{source}/")
                    to.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / name, to)

    def run(
        self, command: list[str], more: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """In namespaces of its own, with the image as the root and only its environment."""
        own = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        root, folder = shlex.quote(str(self.root)), shlex.quote(self.folder)
        as_user = f"setpriv --reuid={self.user} --regid={self.user} --clear-groups"
        script = "\n".join(
            [
                "set -e",
                f"mount --bind /dev {root}/dev",
                f"mount -t tmpfs tmpfs {root}/dev/shm",
                f"mount -t proc proc {root}/proc",
                *self.mounts,
                f'exec chroot {root} {as_user} sh -c \'cd "$0" && exec "$@"\' {folder} "$@"',
            ]
        )
        ran = subprocess.run(
            [*UNSHARED, "sh", "-c", script, "sh", *command],
            env=own
            | {"HOME": "/home/deltah" if self.user else "/root"}
            | network()
            | self.environment
            | (more or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, f"{command}\n{ran.stdout[-5000:]}\n{ran.stderr[-5000:]}"
        return ran


def network() -> dict[str, str]:
    """How this machine reaches package indexes: certificates, proxies, and pip's own settings."""
    own = {
        name: value
        for name, value in os.environ.items()
        if re.search(r"(?i)proxy$|^pip_|ssl_cert|ca_bundle", name)
    }
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    for key, value in re.findall(r"^global\.([\w-]+)='(.*)'$", listed.stdout, flags=re.MULTILINE):
        own.setdefault(f"PIP_{key.upper().replace('-', '_')}", value)
    return own


def lent_folders() -> Iterator[str]:
    """Folders of this machine that those settings name."""
    for value in network().values():
        for word in value.split():
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                beside = not path.is_dir() or word.startswith("file://")  # an index names files
                yield str(path.parent if beside else path)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
@pytest.mark.skipif(not shutil.which("debootstrap"), reason="no debootstrap is installed")
@pytest.mark.timeout(3600)
def test_its_steps_in_a_clean_debian_make_an_image_whose_demo_runs(tmp_path: Path) -> None:
    """Debian 12 with its own Python 3.11 stands for the base image, which is the same Debian."""
    root = tmp_path / "root"
    packages = "python3,python3-pip,python3-dev,ca-certificates"
    subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)],
        check=True,
        capture_output=True,
    )
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    mounts = []
    for lent in sorted(set(lent_folders())):
        (root / lent.lstrip("/")).mkdir(parents=True, exist_ok=True)
        mounts.append(f"mount --bind {lent} {root}{lent}")
    image = Image(root, mounts)
    for instruction, value in steps():
        image.carry_out(instruction, value)

    ran = image.run([*image.entrypoint, "demo"])
    assert "deltah verify demo-output/run --deep" in ran.stdout
    checked = image.run([*image.entrypoint, "verify", "demo-output/run", "--deep"])
    assert "8 shards: 8 committed, 0 quarantined" in checked.stdout
    assert (root / "work/demo-output/run/index.json").stat().st_uid == IMAGE_USER
    assert "ray, version 2.60.0" in image.run(["ray", "--version"]).stdout
