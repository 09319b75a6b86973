"""Asyrp's published direction files (Kwon et al. 2023), read without running what they may hold.

A file of `--train_delta_block` has a small network f_t for each attribute under "0" ("1", …),
beside the states of its optimizer; one of `--train_delta_h` a (C, Y, X) tensor for each timestep
under "999" …; one of `--num_mean_of_delta_hs` (1, C, Y, X) tensors under the integers, None where
nothing is edited. In both of the latter, 0 is the one for every timestep.

Such a file belongs to the U-Net it was trained on, which it does not name. f_t has two forms: that
of Ho et al.'s U-Net (faces, LSUN) and that of improved and guided diffusion (FFHQ, AFHQ, MetFaces).

Shape suffixes: B batch, C channels, Y, X of h; E time embedding, S steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from lib.editors.delta_block import DDPM_PARTS, GROUPS, IMPROVED_PARTS, delta_h
from lib.files import storage
from lib.files.tensor_files import read_pickled
from lib.models.time_embedding import TimeEmbedding
from lib.problems import ConfigProblem

_BESIDE = ("optimizer", "scheduler")


@dataclass(frozen=True, slots=True)
class DirectionFunction:
    """f_t: a shift of h that depends on h and on t."""

    source: str
    """Name of the file it comes from."""
    block: str
    weights: Mapping[str, Tensor]
    """Under the names of the file, float32, CPU."""
    time: TimeEmbedding
    ignores_time: bool
    """Trained with --ignore_timesteps, that is without the time embedding."""

    @property
    def channels(self) -> int:
        """Of h."""
        return len(self.weights[f"{_parts(self.weights)[-1]}.bias"])

    def apply(self, h_BCYX: Tensor, t: int) -> Tensor:
        """delta h at timestep t, in units of h: Asyrp adds it times (steps of the training / steps
        of the decoding) to the mid block's output, where only the predicted x_0 sees it. Device of
        `h_BCYX`.

        Raises:
            ValueError: h has other channels.
        """
        if h_BCYX.ndim != 4 or h_BCYX.shape[1] != self.channels:
            expected, got = self.channels, tuple(h_BCYX.shape)
            raise ValueError(f"{self.source}: expected h (B, {expected}, Y, X), got {got}")
        weights = {name: value.to(h_BCYX) for name, value in self.weights.items()}
        temb_1E = None if self.ignores_time else self.time.at(t).to(h_BCYX)
        return delta_h(weights, h_BCYX, temb_1E)


@dataclass(frozen=True, slots=True)
class StepDeltas:
    """delta h as tensors: the same for every image."""

    source: str
    steps: Mapping[int, Tensor]
    """(C, Y, X) by timestep, from the highest down; may be empty."""
    everywhere: Tensor | None
    """(C, Y, X) for every timestep; None where the file has none."""


def read_asyrp(
    url: str, time: TimeEmbedding, *, block: str = "0", ignores_time: bool = False
) -> DirectionFunction | StepDeltas:
    """What an Asyrp .pth holds; `block` picks one of several networks.

    `time` is the time embedding of the U-Net that f_t was trained on: Asyrp's own, or diffusers'
    conversion of it, which computes the same. The file does not say whether f_t
    `ignores_time`.

    Raises:
        ConfigProblem: no or a damaged file, pickled code, neither kind of content, another
            architecture, a width that is not that of `time`, or values that are not finite.
    """
    content, source = read_pickled(url), storage.basename(url)
    where = storage.redact(url)
    if isinstance(content, Mapping):
        kept = {str(k): v for k, v in content.items() if str(k) not in _BESIDE and v is not None}
        networks = {k: v for k, v in kept.items() if isinstance(v, Mapping)}
        tensors = {k: v for k, v in kept.items() if isinstance(v, Tensor)}
        if networks and not tensors:
            if block not in networks:
                raise ConfigProblem(
                    f"{where}: expected a network {block!r}, found {sorted(networks)}"
                )
            weights = _weights(networks[block], time, f"{where}: network {block!r}")
            return DirectionFunction(source, block, weights, time, ignores_time)
        if tensors and not networks and all(k.isdecimal() for k in tensors):
            return _deltas(source, {int(k): v for k, v in tensors.items()}, where)
    raise ConfigProblem(
        f"{where}: expected a direction file of Asyrp (networks or tensors under '0', '1', …), got"
        f" {_summary(content)}"
    )


def _weights(state: Mapping[Any, Any], time: TimeEmbedding, where: str) -> Mapping[str, Tensor]:
    names = {f"{part}.{kind}" for part in _parts(state) for kind in ("weight", "bias")}
    if set(state) != names or not all(isinstance(v, Tensor) for v in state.values()):
        odd = sorted(set(map(str, state)) ^ names)
        raise ConfigProblem(f"{where}: expected the weights of Asyrp's DeltaBlock; odd: {odd[:6]}")
    channels = len(state[f"{_parts(state)[-1]}.bias"])
    if channels % GROUPS:
        raise ConfigProblem(f"{where}: expected a multiple of {GROUPS} channels, got {channels}")
    for name in sorted(names):
        value, expected = state[name], _shape(name, channels, time.width)
        if tuple(value.shape) != expected:
            raise ConfigProblem(
                f"{where}: expected {name} of shape {expected} (time embedding of this model:"
                f" {time.width}), got {tuple(value.shape)}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ConfigProblem(
                f"{where}: expected finite weights, found NaN or infinity in {name}"
            )
    return MappingProxyType({n: state[n].detach().float() for n in sorted(names)})


def _parts(state: Mapping[Any, Any]) -> tuple[str, ...]:
    return DDPM_PARTS if "conv1.weight" in state else IMPROVED_PARTS


def _shape(name: str, channels: int, width: int) -> tuple[int, ...]:
    part, _, kind = name.rpartition(".")
    if kind == "bias" or part in ("norm2", "in_layers.0", "out_layers.0"):
        return (channels,)
    if part in ("temb_proj", "emb_layers.1"):
        return (channels, width)
    return (channels, channels, 1, 1)


def _deltas(source: str, tensors: Mapping[int, Tensor], where: str) -> StepDeltas:
    maps: dict[int, Tensor] = {}
    for t in sorted(tensors, reverse=True):
        value = tensors[t].detach().float()
        value = value[0] if value.ndim == 4 and len(value) == 1 else value
        first = next(iter(maps.values()), value)
        if value.ndim != 3 or value.shape != first.shape:
            raise ConfigProblem(
                f"{where}: expected delta h (C, Y, X) of one shape at every timestep, got"
                f" {tuple(tensors[t].shape)} at {t}"
            )
        if not bool(torch.isfinite(value).all()):
            raise ConfigProblem(f"{where}: expected finite values, found NaN or infinity at {t}")
        maps[t] = value
    everywhere = maps.pop(0, None)
    return StepDeltas(source, MappingProxyType(maps), everywhere)


def _summary(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"the keys {sorted(map(str, content))[:6]}"
    return type(content).__name__
