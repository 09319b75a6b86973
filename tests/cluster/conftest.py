"""A run of toy shards: inputs that say what happens to them, a config, and what was left."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from safetensors.numpy import save_file

from cluster.events import read_events
from cluster.runner import run
from cluster.scheduling.orders import Rules
from cluster.settlement import Outcome
from lib.ledger.run_folder import RunFolder
from pipelines.config import Execution, Input, Model, Output, RunConfig
from pipelines.segment_config import Box, Segment


@pytest.fixture(scope="session")
def toys() -> ModuleType:
    """The module `toy_worker` beside this file."""
    path = Path(__file__).parent / "toy_worker.py"
    spec = importlib.util.spec_from_file_location("toy_worker", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_worker"] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class ToyRun:
    """A folder of inputs and the run made from them."""

    root: Path
    execution: Execution
    rules: Rules
    console: Console

    @property
    def folder(self) -> RunFolder:
        return RunFolder(str(self.root / "run"))

    @property
    def config(self) -> RunConfig:
        return RunConfig(
            input=Input(shards=(str(self.root / "in" / "*.tar"),)),
            model=Model(checkpoint=str(self.root / "model")),
            segment=Segment(regions={"left": Box(box=(0, 0, 0.5, 1))}),
            output=Output(folder=str(self.root / "run")),
            execution=self.execution,
        )

    def write(self, **shards: dict[str, Any]) -> None:
        for name, order in shards.items():
            (self.root / "in" / f"{name}.tar").write_text(json.dumps(order))

    def run(self, factory: Callable[[str, str], Any], **options: Any) -> Outcome:
        return run(self.config, factory=factory, console=self.console, rules=self.rules, **options)

    def starts(self, shard: str) -> list[str]:
        path = self.root / "in" / "starts" / shard
        return path.read_text().splitlines() if path.exists() else []

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in read_events(self.folder) if event["event"] == kind]

    def printed(self) -> str:
        file = self.console.file
        assert isinstance(file, io.StringIO)
        return file.getvalue()


@pytest.fixture
def toy_run(tmp_path: Path) -> ToyRun:
    return new_toy_run(tmp_path)


@pytest.fixture(scope="session")
def make_toy_run() -> Callable[[Path], ToyRun]:
    """For a module that makes one run and looks at it in several tests."""
    return new_toy_run


def new_toy_run(root: Path) -> ToyRun:
    (root / "in").mkdir()
    model = root / "model"
    model.mkdir()
    (model / "config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 64}')
    (model / "scheduler_config.json").write_text("{}")
    save_file({}, model / "diffusion_pytorch_model.safetensors")
    rules = Rules(
        workers=1, max_attempts=3, stall_timeout_s=60, retry_pause_s=0.1, vanished_pause_s=0.3
    )
    return ToyRun(root, Execution(), rules, Console(file=io.StringIO()))
