"""The config as it leaves this machine: whole, with absolute paths, free of secrets, and checked as
far as it can be checked from here.

What only the cluster can see (an object store, a checkpoint on its disks) is checked there, by the
run itself before it begins: same sentences, same exit code 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import yaml

from cluster.pools.opening import check_engine
from lib.files import storage
from lib.files.store_backends import local_path
from lib.ledger.run_folder import RunFolder
from lib.models.hub import comes_from_hub
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.inputs import absolute, expand_inputs, missing_inputs
from pipelines.located import located
from pipelines.plan import make_plan
from pipelines.run_claim import run_claim

_DATA = ("input.", "output.")
_LEAVING_S = 15
"""From the end of the last shard to that of the process, with room to spare."""
_NO_SECRETS = {"versionid"}
"""Keys of a URL's query that give nobody access to anything."""


def travelling(config: RunConfig) -> RunConfig:
    """`config` for other machines: local paths absolute, those of the shards too.

    Raises:
        ConfigProblem: an address holds what may be a secret, or the engine cannot do what is asked.
        Problem: what a run would refuse, as far as the files that decide it are on this machine.

    """
    shards = tuple(absolute(pattern) for pattern in config.input.shards)
    config = located(config).model_copy(
        update={"input": config.input.model_copy(update={"shards": shards})}
    )
    _refuse_secrets(config)
    check_engine(config.execution)
    if _decidable_here(config):
        _refuse_as_a_run_would(config)
    return config


def drained_within(config: RunConfig, seconds: int) -> RunConfig:
    """`config` that, once asked to stop, has let go of its shards before it is killed for taking
    longer than `seconds`; where it says itself how long, it stays as it is.
    """
    execution = config.execution
    if execution.drain_timeout_s is not None:
        return config
    own_s = max(seconds - _LEAVING_S, seconds / 2)
    execution = execution.model_copy(update={"drain_timeout_s": own_s})
    return config.model_copy(update={"execution": execution})


def config_text(config: RunConfig) -> str:
    """YAML that reads as `config` wherever it is read."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=2**16)


def local_paths(config: RunConfig) -> list[tuple[str, str]]:
    """Key and path of all that a config with absolute paths names on disks."""
    return [
        (key, text)
        for key, text in _texts(config)
        if text.startswith("/") or ("://" in text and local_path(text) is not None)
    ]


def local_warning(config: RunConfig) -> str:
    """A sentence that names the paths every machine of the cluster must see, of a list the first;
    "" if there are none.
    """
    first: dict[str, str] = {}
    for key, path in local_paths(config):
        first.setdefault(key, path)
    if not first:
        return ""
    named = ", ".join(f"{key} {path}" for key, path in first.items())
    return (
        f"all machines of the cluster must see the same files at {named}; if they do not share"
        " that file system, use an object store"
    )


def _decidable_here(config: RunConfig) -> bool:
    """Whether all files but input and output are on this machine."""
    if comes_from_hub(config.model.checkpoint):
        return False
    if any("://" in text for key, text in _texts(config) if not key.startswith(_DATA)):
        return False
    others = (path for key, path in local_paths(config) if not key.startswith(_DATA))
    return all(map(os.path.exists, others))


def _refuse_as_a_run_would(config: RunConfig) -> None:
    record = run_claim(config)
    if local_path(config.output.folder) is not None:
        folder = RunFolder(config.output.folder)
        if storage.exists(folder.run_url):
            folder.open_run(record)  # there already, so this only compares
    if any(local_path(pattern) is None for pattern in config.input.shards):
        return
    try:
        inputs = expand_inputs(config.input.shards)
    except ConfigProblem:  # of another machine, it may be
        return
    if not missing_inputs(inputs):
        make_plan(config, inputs)


def _refuse_secrets(config: RunConfig) -> None:
    for key, text in _texts(config):
        if "://" not in text:
            continue
        parts = urlsplit(text)
        query = {name.lower() for name, _ in parse_qsl(parts.query)}
        if "@" in parts.netloc or query - _NO_SECRETS:
            raise ConfigProblem(
                f"{key}: expected an address without user, password or query, because a submitted"
                f" config can be read by others; got {storage.redact(text)}; give the nodes their"
                " credentials by their environment"
            )


def _texts(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Every text of the config with its dotted key; those of a list share the list's."""
    return _leaves(config.model_dump(mode="json"), "")


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _leaves(child, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(child, path)
    elif isinstance(value, str):
        yield path, value
