"""`deltah submit` as it is typed: what does not go together, names, and where the text goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli import main
from cluster.submission.job_folder import refuse_fleeting_output

pytestmark = pytest.mark.timeout(60)

DEMO = ("submit", "demo", "--set", "input.shards=[s3://b/x.tar]", "--set", "output.folder=s3://b/o")


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--image", "i"), "--image: expected --kuberay beside it"),
        (("--nodes", "2"), "--nodes: expected --slurm beside it"),
        (("--kuberay", "--image", "i", "--array"), "--array: expected --slurm beside it"),
        (("--slurm", "--address", "http://h:1"), "--address: it is for the Jobs API of Ray"),
        (("--slurm", "--no-follow"), "--follow: it is for the Jobs API of Ray"),
        (("--slurm", "--kuberay"), "expected --kuberay or --slurm, got both"),
        (("-o", "x"), "-o: expected --kuberay or --slurm beside it"),
        (("--kuberay",), "--image: expected the image to run"),
    ],
)
def test_options_of_another_destination_are_refused(
    capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    assert call(*DEMO, *options) == 2
    text = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert f"Invalid value for {said}" in text or f"Invalid value: {said}" in text


@pytest.mark.parametrize("form", [(), ("--slurm",), ("--kuberay", "--image", "i")])
@pytest.mark.parametrize("name", ["", "a b", "../x", "-x"])
def test_a_name_that_is_none_is_refused(
    capsys: pytest.CaptureFixture[str], form: tuple[str, ...], name: str
) -> None:
    assert call(*DEMO, *form, f"--name={name}") == 2
    assert "error: --name: expected" in capsys.readouterr().err


def test_without_an_address_it_says_where_one_is_expected(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # Ray itself, not its dashboard
    assert call(*DEMO) == 2
    assert "such as http://HEAD:8265, here or in RAY_API_SERVER_ADDRESS" in capsys.readouterr().err


@pytest.mark.parametrize("held", [None, "", b"\xff"])
def test_a_token_file_without_a_token_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    held: str | bytes | None,
) -> None:
    """Ray itself would abort the process."""
    path = tmp_path / "token"
    if held is not None:
        path.write_bytes(held if isinstance(held, bytes) else held.encode())
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert call(*DEMO, "--address", "http://127.0.0.1:1") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: RAY_AUTH_TOKEN_PATH: expected a file with the token")


def test_a_runtime_environment_may_not_replace_the_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "env.yaml").write_text("working_dir: elsewhere\n")
    assert call(*DEMO, "--runtime-env", tmp_path / "env.yaml", "--address", "h:1") == 2
    assert "working_dir: expected none, because submit sends" in capsys.readouterr().err


def test_a_run_in_the_folder_of_a_job_may_not_write_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Ray unpacks what it was sent; seen with `ray job submit` on a head of Ray 2.60."""
    folder = tmp_path / "session" / "runtime_resources" / "working_dir_files" / "_ray_pkg_0"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    assert call("run", "demo", "--set", "output.folder=out") == 2
    said = capsys.readouterr().err
    assert "output.folder: expected an absolute path or a URL, because Ray deletes" in said
    refuse_fleeting_output(str(tmp_path / "out"))
    refuse_fleeting_output("s3://bucket/runtime_resources/working_dir_files/out")


def test_the_name_comes_from_the_config_and_the_text_goes_to_a_file_or_to_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "2nd Run_of faces.yaml"
    config.write_text(
        "preset: demo\ninput: {shards: ['s3://b/x.tar']}\noutput: {folder: 's3://b/o'}\n"
    )
    assert call("submit", config, "--slurm") == 0
    printed = capsys.readouterr()
    assert "#SBATCH --job-name=run-2nd-run-of-faces\n" in printed.out
    assert printed.err == ""
    assert call("submit", config, "--slurm", "-o", tmp_path / "job.sh") == 0
    assert (tmp_path / "job.sh").read_text() == printed.out
    assert f"sbatch {tmp_path}/job.sh" in capsys.readouterr().err
