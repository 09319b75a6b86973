"""Measured effects as files: what `library score` leaves behind image by image, so that the same
command goes on where it was killed.

Shape suffixes: N directions, K of them with a row of the sheet; H, W of the image, C colours; P, P
of a portrait; F factors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lib.files import storage
from pipelines.effects import Effect, Measured
from pipelines.library_sheets import SheetRow

SCORES = "scores"
"""Folder in the library; empty but while it is scored."""

_NUMBERS = 6
_PICTURES = ("minus", "reconstruction", "plus")


@dataclass(frozen=True, slots=True)
class StoredEffects:
    """The files of one measurement in a library's folder: one for every image and batch of
    directions.
    """

    root: str
    """Of the library."""
    measurement: str
    """Hash of all that decides the numbers; files of another are left alone until `clear`."""

    def find(self, image: int, batch: int) -> list[Measured | None] | None:
        """What was measured of a batch on an image; None if it was not, or the file is damaged."""
        try:
            return decode(storage.read_bytes(self._url(image, batch)))
        except (FileNotFoundError, ValueError):
            return None

    def write(self, image: int, batch: int, measured: Sequence[Measured | None]) -> None:
        """Store what was measured."""
        storage.replace(self._url(image, batch), encode(measured))

    def clear(self) -> None:
        """Remove all, also what other measurements have left."""
        for name in storage.list_names(storage.join(self.root, SCORES)):
            storage.delete(storage.join(self.root, SCORES, name))

    def _url(self, image: int, batch: int) -> str:
        name = f"{self.measurement[:16]}-{image:05d}-{batch:05d}.safetensors"
        return storage.join(self.root, SCORES, name)


def encode(measured: Sequence[Measured | None]) -> bytes:
    """The effects of some directions on one image, as safetensors; `decode` gives the same."""
    found = [(n, one) for n, one in enumerate(measured) if one is not None]
    rows = [(n, one.row) for n, one in found if one.row is not None]
    tensors = {
        "count": torch.tensor(len(measured)),
        "found": torch.tensor([n for n, _ in found], dtype=torch.int64),
        "rows": torch.tensor([n for n, _ in rows], dtype=torch.int64),
    }
    if found:
        tensors["numbers"] = torch.stack([_numbers(one.effect) for _, one in found])
        tensors["portraits"] = torch.stack([one.portrait_CPP for _, one in found])
    if rows:
        for name in _PICTURES:
            pixels_KHWC = np.stack([getattr(row, name) for _, row in rows])
            tensors[name] = torch.from_numpy(pixels_KHWC)
        masks = [row.plus[..., 0] * 0 if row.mask is None else row.mask for _, row in rows]
        tensors["mask"] = torch.from_numpy(np.stack(masks).astype(np.uint8))
        tensors["masked"] = torch.tensor([row.mask is not None for _, row in rows])
    return save(tensors)


def decode(data: bytes) -> list[Measured | None]:
    """What `encode` was given.

    Raises:
        ValueError: the file is damaged, or something else.
    """
    try:
        tensors = load(data)
        places = {n: k for k, n in enumerate(tensors["rows"].tolist())}
        measured: list[Measured | None] = [None] * int(tensors["count"])
        for k, n in enumerate(tensors["found"].tolist()):
            effect = _effect(tensors["numbers"][k])
            row = _row(tensors, places[n], effect.reached) if n in places else None
            measured[n] = Measured(effect, tensors["portraits"][k], row)
    except (SafetensorError, KeyError, IndexError) as error:
        raise ValueError(f"expected measured effects, got {error!r}") from error
    return measured


def _numbers(effect: Effect) -> Tensor:
    own = (
        float(effect.reached),
        effect.strength,
        effect.in_change,
        effect.roir,
        effect.linearity,
        effect.symmetry,
    )
    return torch.cat([torch.tensor(own, dtype=torch.float64), effect.factors_F.double()])


def _effect(numbers: Tensor) -> Effect:
    reached, strength, in_change, roir, linearity, symmetry = numbers[:_NUMBERS].tolist()
    factors_F = numbers[_NUMBERS:].float()
    return Effect(bool(reached), strength, in_change, roir, linearity, symmetry, factors_F)


def _row(tensors: Mapping[str, Tensor], k: int, reached: bool) -> SheetRow:
    mask_HW = tensors["mask"][k].numpy().astype(bool) if tensors["masked"][k] else None
    minus, reconstruction, plus = (tensors[name][k].numpy() for name in _PICTURES)
    return SheetRow(minus, reconstruction, plus, mask_HW, reached)
