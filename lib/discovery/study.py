"""Learning from all images of a run: sums of one shard, the sums of all shards, and the directions
made of them.

What is summed and how parts are cut depends on the study and on positions in a shard alone, and
finalize adds shards up in the order of their names, so the result does not depend on who did what.

Shape suffixes: S timesteps, C, Y, X of h; D all entries of h at all steps of a part; N samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lib.direction import Direction
from lib.discovery import extremes, pca
from lib.discovery.extremes import Extremes
from lib.discovery.pca import Moments
from lib.discovery.statistics_files import Arrays, StatisticsDamageError, Study, decode, encode
from lib.discovery.study_directions import component_directions, label_direction

JOINT = "joint"
"""The one part of a PCA over all timesteps together."""


class ShardSums:
    """Gathers the samples of one shard, in the order of their index."""

    def __init__(self, study: Study, shard: str) -> None:
        self._study = study
        self._shard = shard
        self._width = len(study.timesteps) * _entries(study)
        self._block: list[tuple[int, Tensor, Mapping[str, float]]] = []
        self._parts: dict[str, Moments | Extremes] = {}

    def add(self, index: int, h_SCYX: Tensor, scores: Mapping[str, float]) -> None:
        """One sample: h at every timestep of the study, and its score for every label (NaN: has
        none).
        """
        size = _block_size(self._study)
        if self._block and index // size != self._block[0][0] // size:
            self._flush()
        self._block.append((index, h_SCYX.detach().float().cpu().flatten(), scores))

    def finish(self) -> bytes:
        """The statistics file of the shard."""
        if self._block or not self._parts:
            self._flush()
        return encode(self._study, {name: _arrays(part) for name, part in self._parts.items()})

    def _flush(self) -> None:
        h_ND = torch.zeros(len(self._block), self._width)
        for row, (_, h_D, _) in enumerate(self._block):
            h_ND[row] = h_D
        ids = [f"{self._shard}/{index:08d}" for index, _, _ in self._block]
        scores = [found for _, _, found in self._block]
        for name, part in _parts(self._study, h_ND, ids, scores).items():
            known = self._parts.get(name)
            self._parts[name] = part if known is None else _pair(self._study, known, part)
        self._block = []


class StudySums:
    """Adds up the statistics files of a run, one at a time."""

    def __init__(self) -> None:
        self._study: Study | None = None
        self._parts: dict[str, Moments | Extremes] = {}

    @property
    def study(self) -> Study:
        """What is studied; raises ValueError before the first `add`."""
        if self._study is None:
            raise ValueError("expected at least one statistics file, got none")
        return self._study

    def add(self, data: bytes, where: str) -> None:
        """Add a shard's file; `where` is for the message.

        Raises:
            StatisticsDamageError: it cannot be read, or is of another study than the others.
        """
        study, stored = decode(data, where)
        if self._study is not None and study != self._study:
            raise StatisticsDamageError(f"{where}: expected the study of the other shards")
        if set(stored) != set(_part_names(study)):
            raise StatisticsDamageError(
                f"{where}: expected the parts {_part_names(study)}, got {sorted(stored)}; delete it"
                " and its commit, and run the same command again"
            )
        self._study = study
        try:
            for name, arrays in stored.items():
                part = _from_arrays(study, arrays)
                known = self._parts.get(name)
                self._parts[name] = part if known is None else _pair(study, known, part)
        except (KeyError, IndexError) as error:
            raise StatisticsDamageError(f"{where}: lacks {error}") from error

    def directions(self) -> tuple[list[Direction], dict[str, str]]:
        """The directions, and label (or "pca") -> why none could be made of it."""
        study = self.study
        if study.method == "pca":
            return _principal(study, self._parts)
        found: list[Direction] = []
        left_out: dict[str, str] = {}
        for label, part in self._parts.items():
            try:
                found.append(label_direction(study, label, _as_extremes(part)))
            except (ValueError, ArithmeticError) as error:
                left_out[label] = f"label {label}: {error}"
        return found, left_out


def _principal(
    study: Study, parts: Mapping[str, Moments | Extremes]
) -> tuple[list[Direction], dict[str, str]]:
    try:
        if study.parameters["mode"] == "joint":
            joint = _as_moments(parts[JOINT])
            return component_directions(study, {study.timesteps: joint}), {}
        steps: dict[tuple[int, ...], Moments] = {
            (t,): _as_moments(parts[_step(t)]) for t in study.timesteps
        }
        return component_directions(study, steps), {}
    except ValueError as error:
        return [], {"pca": str(error)}


def _part_names(study: Study) -> list[str]:
    """What is summed apart: labels, timesteps, or all timesteps together."""
    if study.method == "supervised":
        return sorted(study.parameters["labels"])
    joint = study.parameters["mode"] == "joint"
    return [JOINT] if joint else [_step(t) for t in study.timesteps]


def _parts(
    study: Study, h_ND: Tensor, ids: Sequence[str], scores: Sequence[Mapping[str, float]]
) -> dict[str, Moments | Extremes]:
    parameters = study.parameters
    if study.method == "pca":
        rank = parameters["sketch_rank"]
        if parameters["mode"] == "joint":
            return {JOINT: pca.moments(h_ND, rank)}
        h_NSD = h_ND.view(len(h_ND), len(study.timesteps), _entries(study))
        return {_step(t): pca.moments(h_NSD[:, s], rank) for s, t in enumerate(study.timesteps)}
    labels, balance = sorted(parameters["labels"]), parameters["balance"]
    columns = {
        label: torch.tensor([found[label] for found in scores], dtype=torch.float64)
        for label in labels
    }
    return {
        label: extremes.extremes(
            h_ND,
            columns[label],
            ids,
            parameters["examples"],
            balance_N=columns[balance] if balance not in (None, label) else None,
            threshold=parameters["balance_threshold"],
        )
        for label in labels
    }


def _pair(study: Study, one: Moments | Extremes, other: Moments | Extremes) -> Moments | Extremes:
    if isinstance(one, Moments) and isinstance(other, Moments):
        return pca.merged([one, other], study.parameters["sketch_rank"])
    return extremes.merged([_as_extremes(one), _as_extremes(other)], study.parameters["examples"])


def _arrays(part: Moments | Extremes) -> Arrays:
    return pca.to_arrays(part) if isinstance(part, Moments) else extremes.to_arrays(part)


def _from_arrays(study: Study, arrays: Arrays) -> Moments | Extremes:
    return pca.from_arrays(arrays) if study.method == "pca" else extremes.from_arrays(arrays)


def _as_moments(part: Moments | Extremes) -> Moments:
    if not isinstance(part, Moments):
        raise TypeError("expected sums of a PCA, got extremes of a label")
    return part


def _as_extremes(part: Moments | Extremes) -> Extremes:
    if not isinstance(part, Extremes):
        raise TypeError("expected extremes of a label, got sums of a PCA")
    return part


def _block_size(study: Study) -> int:
    """Samples that are taken in at once: bounds memory; cut by index, so the same every time."""
    parameters: Mapping[str, Any] = study.parameters
    kept = parameters["sketch_rank"] if study.method == "pca" else 2 * parameters["examples"]
    return max(32, int(kept))


def _entries(study: Study) -> int:
    channels, height, width = study.h_shape
    return channels * height * width


def _step(t: int) -> str:
    return f"t{t:04d}"
