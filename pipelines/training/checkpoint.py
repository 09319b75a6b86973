"""The state of a training in its output folder, from which it goes on after a kill: the editor's
weights, the optimizer's moments and the losses so far, in one .safetensors that appears whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from lib.files import storage
from lib.files.tensor_files import read_safetensors
from lib.fingerprint import canonical_json
from lib.problems import ConfigProblem

FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d{8})\.safetensors")
_KEPT = 2
_HEADER = "deltah.checkpoint"


@dataclass(frozen=True, slots=True)
class History:
    """The losses of all steps so far."""

    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    """One a step, in the order of the names."""


EMPTY = History((), ())


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read."""

    step: int
    """Steps that are done."""
    data_sha256: str
    history: History
    tensors: Mapping[str, Tensor]

    def restore(self, editor: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put weights and moments back."""
        own = {n.removeprefix("editor/"): v for n, v in self.tensors.items() if "editor/" in n}
        with torch.no_grad():
            for name, parameter in _trained(editor):
                parameter.copy_(own[name])
        state: dict[int, dict[str, Any]] = {}
        for name, value in self.tensors.items():
            if name.startswith("optimizer/"):
                _, number, key = name.split("/")
                state.setdefault(int(number), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_checkpoint(
    root: str,
    *,
    fingerprint: str,
    data_sha256: str,
    step: int,
    history: History,
    editor: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Write it, and forget those before the last."""
    tensors = {f"editor/{name}": value.detach() for name, value in _trained(editor)}
    for number, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            tensors[f"optimizer/{number}/{key}"] = torch.as_tensor(value)
    tensors["history"] = torch.tensor(history.rows, dtype=torch.float64).reshape(
        len(history.rows), len(history.names)
    )
    head = {
        "step": step,
        "fingerprint": fingerprint,
        "data_sha256": data_sha256,
        "terms": list(history.names),
    }
    flat = {name: tensors[name].cpu().contiguous().clone() for name in sorted(tensors)}
    data = safetensors.torch.save(flat, metadata={_HEADER: canonical_json(head)})
    storage.replace(storage.join(root, FOLDER, f"step-{step:08d}.safetensors"), data)
    for name in _names(root)[:-_KEPT]:
        storage.delete(storage.join(root, FOLDER, name))


def last_checkpoint(root: str, fingerprint: str) -> Checkpoint | None:
    """The newest, or None before there is one.

    Raises:
        ConfigProblem: it is damaged or of another training.
    """
    names = _names(root)
    if not names:
        return None
    url = storage.join(root, FOLDER, names[-1])
    tensors, header = read_safetensors(url)
    try:
        head = json.loads(header[_HEADER])
        rows = tuple(tuple(row) for row in tensors.pop("history").tolist())
        found = Checkpoint(
            int(head["step"]), head["data_sha256"], History(tuple(head["terms"]), rows), tensors
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a checkpoint of a training: {error}; delete it to go"
            " on from the one before"
        ) from error
    if head["fingerprint"] != fingerprint:
        raise ConfigProblem(f"{storage.redact(url)}: it is of another training; give a new folder")
    return found


def clear_checkpoints(root: str) -> None:
    """Of a training that has ended."""
    for name in _names(root):
        storage.delete(storage.join(root, FOLDER, name))


def _names(root: str) -> Sequence[str]:
    return sorted(n for n in storage.list_names(storage.join(root, FOLDER)) if _NAME.fullmatch(n))


def _trained(editor: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in editor.named_parameters() if p.requires_grad]
