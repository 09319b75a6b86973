"""Ways into the ledger's test data, which the killed writer's script shares."""

from __future__ import annotations

import importlib.util
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest

from lib.ledger.run_folder import RunFolder
from lib.ledger.run_record import run_record

FIELDS: dict[str, Any] = {"grid": {"num_steps": 40}, "model": {"weights": "ab12"}}
CONFIG: dict[str, Any] = {
    "input": {"shards": ["s3://user:secret@faces/{00000..00003}.tar"]},
    "model": {"checkpoint": "embedded"},
    "grid": {"num_steps": 40},
    "output": {"folder": "out", "format": "png", "layout": "edited"},
}


@pytest.fixture(scope="session")
def results() -> ModuleType:
    """The module `shard_results` beside this file."""
    path = Path(__file__).with_name("shard_results.py")
    spec = importlib.util.spec_from_file_location("shard_results", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["shard_results"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["local", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunFolder]:
    """A claimed run folder, on disk and in fsspec's memory store."""
    local = request.param == "local"
    root = str(tmp_path / "run") if local else f"memory://{uuid.uuid4().hex}/run"
    made = RunFolder(root)
    made.open_run(run_record(FIELDS, CONFIG))
    yield made
    if not local:
        fsspec.filesystem("memory").rm(root.removeprefix("memory:/"), recursive=True)


@pytest.fixture
def fingerprint(folder: RunFolder) -> str:
    return str(folder.read_run()["fingerprint"])
