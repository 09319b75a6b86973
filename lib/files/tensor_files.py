"""Reading tensors from files of others: .safetensors, and .pt / .pth without ever running what a
pickle may hold.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lib.files import storage
from lib.problems import ConfigProblem

SAFETENSORS = ".safetensors"
PICKLED = (".pt", ".pth")


def read_pickled(url: str) -> Any:
    """The content of a .pt / .pth file, tensors on the CPU: tensors and plain values only.

    Raises:
        ConfigProblem: there is no file, it is damaged, or it holds anything else.
    """
    data = _read(url)
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _damaged(url, error) from error
    except (EOFError, OSError, AttributeError, TypeError, UnicodeDecodeError) as error:
        raise _damaged(url, error) from error


def read_safetensors(url: str) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    """The tensors of a .safetensors file by name, sorted, and the metadata of its header.

    Raises:
        ConfigProblem: there is no file, or it is damaged.
    """
    data = _read(url)
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a whole safetensors file, got: {error}"
        ) from error
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return {name: tensors[name] for name in sorted(tensors)}, header.get("__metadata__", {})


def _read(url: str) -> bytes:
    try:
        return storage.read_bytes(url)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigProblem(f"{storage.redact(url)}: expected a file, found none") from error


def _damaged(url: str, error: Exception) -> ConfigProblem:
    reason = " ".join(str(error).split()[:40])
    return ConfigProblem(
        f"{storage.redact(url)}: expected a whole file of torch.save with tensors and plain values"
        f" only; anything else in a pickle could run code and is refused: {reason}"
    )
