"""The README is the manual: what it tabulates is what the code has."""

import re
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel
from typer.main import get_command

from cluster.cli import app
from cluster.watching.ray_metrics import COUNTERS, GAUGES, HISTOGRAMS
from lib.files import schemas
from pipelines.config import RunConfig
from pipelines.presets import PRESETS
from pipelines.training.config import TrainConfig
from pipelines.training.presets import TRAIN_PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text()


def documented(heading: str) -> set[str]:
    """First words in code font of the rows of the first table below `heading`."""
    blocks = README.split(heading, 1)[1].split("\n\n")
    table = next(block for block in blocks if block.startswith("|"))
    return set(re.findall(r"^\| `([^`]+)`", table, flags=re.MULTILINE))


def sections(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    arguments = get_args(kind) if isinstance(kind, UnionType) or get_origin(kind) else ()
    return [section for argument in arguments for section in sections(argument)]


def test_every_config_key_is_documented_and_no_other() -> None:
    keys = {
        f"{name}.{key}"
        for name, field in RunConfig.model_fields.items()
        for section in sections(field.annotation)
        for key in section.model_fields
    }
    plain = {n for n, field in RunConfig.model_fields.items() if not sections(field.annotation)}
    assert documented("## Config") == keys | plain


def test_every_key_of_a_training_is_documented_and_no_other() -> None:
    shared = {"input", "model", "grid"}
    fields = TrainConfig.model_fields
    kinds = {
        f"{name}.{key}"
        for name, field in fields.items()
        for section in sections(field.annotation)
        for key in section.model_fields
        if name not in shared
    }
    assert documented("Config of a training") == kinds | {"objective"}


def test_every_column_is_documented_and_no_other() -> None:
    assert documented("Columns of `manifest/edits") == set(schemas.EDITS.names)
    assert documented("Columns of `directions") == set(
        schemas.directions((1, 1, 1, 1), "float16").names
    )


def test_every_metric_is_documented_with_its_labels_and_no_other() -> None:
    metrics = COUNTERS | GAUGES | HISTOGRAMS
    assert documented("**Prometheus.**") == metrics.keys()
    for name, (_, labels) in metrics.items():
        row = next(line for line in README.splitlines() if line.startswith(f"| `{name}`"))
        assert tuple(re.findall(r"`([a-z]+)`:", row)) == labels


def test_every_event_is_named() -> None:
    root = Path(__file__).parents[1] / "cluster" / "watching"
    source = (root / "event_notes.py").read_text() + (root / "monitor.py").read_text()
    events = set(re.findall(r"add\(\s*\"([a-z_]+)\"", source))
    assert len(events) > 10
    assert {name for name in events if f"`{name}`" not in README} == set()


@pytest.mark.parametrize("name", [*PRESETS, *TRAIN_PRESETS])
def test_every_preset_is_named(name: str) -> None:
    assert f"`{name}`" in README


def test_every_verb_is_named() -> None:
    for verb in get_command(app).commands:  # type: ignore[attr-defined]
        assert f"| `{verb}" in README, verb


def test_every_file_that_the_readme_points_to_exists() -> None:
    root = Path(__file__).parents[1]
    for path in re.findall(r"`((?:tests|benchmarks|lib)/[^`*]*)`|\]\(((?!http|#)[^)]+)\)", README):
        assert (root / (path[0] or path[1])).exists(), path


def test_every_link_within_the_readme_has_its_heading() -> None:
    headings = re.findall(r"^#+ (.+)$", README, flags=re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
