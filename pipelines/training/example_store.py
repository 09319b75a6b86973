"""Images, counterfactuals and inverted x_t of a training, prepared once for all workers of a
machine and mapped into memory by each: every step draws its batch from all of them.

Shape suffixes: N examples, S nodes, C, H, W of the image; L, Y, X of the latent.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lib.pixels import as_floats, quantised
from lib.receipts import Failure
from pipelines.training.example_reading import Findings

READY = "examples.json"
"""Written last: without it, what lies in the folder is not whole."""
_STATES, _IMAGES, _TARGETS = "states.f32", "images.u8", "targets.u8"
_LATENTS = "latents.f32"


@dataclass(frozen=True, slots=True)
class Examples:
    """All examples of a training."""

    count: int
    image_NCHW: np.ndarray
    """uint8."""
    target_NCHW: np.ndarray | None
    """uint8; None where no term is paired."""
    latent_NLYX: np.ndarray | None
    """float32, the image as the model takes it; None where that is the image itself."""
    states_NSLYX: np.ndarray | None
    """float32, x_t at the nodes that were asked for, in their order; None where nothing is
    inverted.
    """
    data_sha256: str
    failures: tuple[Failure, ...]

    def images(self, index_B: Sequence[int]) -> Tensor:
        """(B, C, H, W) float32 in [-1, 1], CPU."""
        return _unit(self.image_NCHW, index_B)

    def targets(self, index_B: Sequence[int]) -> Tensor | None:
        """As `images`, of the counterfactuals; None where there are none."""
        return None if self.target_NCHW is None else _unit(self.target_NCHW, index_B)

    def latents(self, index_B: Sequence[int]) -> Tensor:
        """(B, L, Y, X) float32, CPU."""
        if self.latent_NLYX is None:
            return self.images(index_B)
        return torch.from_numpy(self.latent_NLYX[list(index_B)])

    def states(self, index_B: Sequence[int], places_B: Sequence[int]) -> Tensor:
        """(B, L, Y, X): x_t of each example at the place of its node among those asked for.

        Raises:
            ValueError: nothing was inverted.
        """
        if self.states_NSLYX is None:
            raise ValueError("expected inverted examples, but the training did not ask for them")
        return torch.from_numpy(self.states_NSLYX[list(index_B), list(places_B)])


class ExampleWriter:
    """Appends examples to the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._shapes: dict[str, list[int]] = {}
        self._count = 0
        for name in (_IMAGES, _TARGETS, _LATENTS, _STATES):
            (folder / name).unlink(missing_ok=True)

    def add(
        self,
        image_CHW: Tensor,
        target_CHW: Tensor | None,
        latent_LYX: Tensor | None,
        states_SLYX: Tensor | None,
    ) -> None:
        """One example: images float32 in [-1, 1], the others as the model has them."""
        self._append(_IMAGES, quantised(image_CHW))
        if target_CHW is not None:
            self._append(_TARGETS, quantised(target_CHW))
        if latent_LYX is not None:
            self._append(_LATENTS, latent_LYX.float())
        if states_SLYX is not None:
            self._append(_STATES, states_SLYX.float())
        self._count += 1

    def finish(self, findings: Findings) -> None:
        """Say that the folder is whole."""
        head = {
            "count": self._count,
            "shapes": self._shapes,
            "data_sha256": findings.data_sha256,
            "failures": [_plain(failure) for failure in findings.failures],
        }
        partial = self._folder / f".{READY}"
        partial.write_text(json.dumps(head))
        partial.replace(self._folder / READY)

    def _append(self, name: str, value: Tensor) -> None:
        self._shapes[name] = list(value.shape)
        with (self._folder / name).open("ab") as file:
            file.write(value.cpu().contiguous().numpy().tobytes())


def opened(folder: Path) -> Examples | None:
    """The examples in `folder`; None where they are not whole."""
    if not (folder / READY).is_file():
        return None
    head = json.loads((folder / READY).read_text())
    count: int = head["count"]

    def mapped(name: str) -> np.ndarray | None:
        shape = head["shapes"].get(name)
        if shape is None:
            return None
        dtype = np.uint8 if name.endswith(".u8") else np.float32
        if prod((count, *shape)) == 0:
            return np.zeros((count, *shape), dtype)
        return np.memmap(folder / name, dtype, "r", shape=(count, *shape))

    images = mapped(_IMAGES)
    return Examples(
        count=count,
        image_NCHW=np.zeros((0, 3, 1, 1), np.uint8) if images is None else images,
        target_NCHW=mapped(_TARGETS),
        latent_NLYX=mapped(_LATENTS),
        states_NSLYX=mapped(_STATES),
        data_sha256=head["data_sha256"],
        failures=tuple(Failure(**each) for each in head["failures"]),
    )


def locked(folder: Path) -> FileLock:
    """Held by whoever prepares the folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(_lock(folder))


def cleared(folder: Path) -> None:
    """Nothing is left of the folder; nobody prepares it any more."""
    shutil.rmtree(folder, ignore_errors=True)
    _lock(folder).unlink(missing_ok=True)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _unit(pixels_NCHW: np.ndarray, index_B: Sequence[int]) -> Tensor:
    return as_floats(torch.from_numpy(pixels_NCHW[list(index_B)]))


def _plain(failure: Failure) -> dict[str, Any]:
    names = ("shard", "index", "key", "stage", "kind", "message")
    return {name: getattr(failure, name) for name in names}
