"""The invert stage of a run that stores latents, and of one that reads what another has stored.

Both are of one shard. Where latents are stored in float16 the run that stores them goes on with the
rounded ones, so that both runs edit from the same numbers.

Shape suffixes: S states of the sampler, L latent channels, Y, X height and width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lib.files import latent_files
from lib.files.latent_files import StoredLatents
from lib.records import Failure, Inverted, Sample
from lib.sampling.grid import Grid
from lib.sampling.sampler import Latent, Sampler, noise_seed, seeded_noise


class InvertStage(Protocol):
    """Samples to their latents."""

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        """In order; what cannot be inverted is rejected."""
        ...


class LatentKeeper:
    """Passes on what `invert` finds, and keeps it for the shard's latents file."""

    def __init__(
        self,
        invert: InvertStage,
        grid: Grid,
        sampler: Sampler,
        *,
        last: int,
        half: bool,
        source: Mapping[str, Any],
    ) -> None:
        self._invert = invert
        self._grid = grid
        self._timestep = grid.timestep(last)
        self._fresh = frozenset(sampler.fresh_nodes(grid, last))
        """Nodes whose noise is drawn again instead of being stored."""
        self._half = half
        """float16 instead of the sampler's own precision."""
        self._source = source
        """What the file says of its origin."""
        self._kept: list[_Kept] = []
        self._failed: list[tuple[int, str, str]] = []

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        """Rejects as `invert` does, and as `not_finite` what float16 cannot hold."""

        def note(failure: Failure) -> None:
            if failure.index is not None:
                self._failed.append((failure.index, failure.kind, failure.message))
            reject(failure)

        for inverted in self._invert(items, note):
            found = self._halved(inverted) if self._half else inverted
            if self._half and not _is_finite(found):
                sample = found.sample
                message = "float16 cannot hold the latent of this image; store float32"
                where = (sample.shard, sample.index, sample.key)
                note(Failure(*where, "invert", "not_finite", message))
                continue
            self._kept.append(_kept(found, self._fresh))
            yield found

    def finish(self) -> bytes:
        """The latents file; b"" when there was no image to invert."""
        if not self._kept and not self._failed:
            return b""
        hashes = [kept.image_sha256 for kept in self._kept]
        states = [kept.latent.states_SLYX for kept in self._kept]
        dtype = str(states[0].dtype).removeprefix("torch.") if states else ""
        stored = StoredLatents(
            timestep=self._timestep,
            index_N=np.array([kept.index for kept in self._kept], np.int64),
            image_sha256_N=np.array(hashes, np.uint8).reshape(len(hashes), 32),
            states_NSLYX=self._stacked(states),
            noises=self._noises(),
            x=self._x(),
            failed=tuple(sorted(self._failed)),
            source={**self._source, "states_dtype": dtype},
        )
        return latent_files.encode(stored)

    def _halved(self, inverted: Inverted) -> Inverted:
        """Rounded to float16 and back, but for noise that is drawn again."""
        noises = {
            node: z_LYX if node in self._fresh else _rounded(z_LYX)
            for node, z_LYX in inverted.latent.noises.items()
        }
        x_LYX = {t: _rounded(x_LYX) for t, x_LYX in inverted.states_LYX.items()}
        latent = Latent(_rounded(inverted.latent.states_SLYX), noises)
        return Inverted(inverted.sample, latent, x_LYX, inverted.h_CYX)

    def _noises(self) -> dict[int, latent_files.Array]:
        nodes = list(self._kept[0].latent.noises) if self._kept else []
        return {
            self._grid.timestep(node): self._stacked([k.latent.noises[node] for k in self._kept])
            for node in nodes
        }

    def _x(self) -> dict[int, latent_files.Array]:
        """Without x_t where the inversion stopped, if that is all there is of the state."""
        if not self._kept:
            return {}
        alone = len(self._kept[0].latent.states_SLYX) == 1
        return {
            t: self._stacked([kept.states_LYX[t] for kept in self._kept])
            for t in self._kept[0].states_LYX
            if not (alone and t == self._timestep)
        }

    def _stacked(self, rows: Sequence[Tensor]) -> latent_files.Array:
        if not rows:
            return np.zeros((0, 1, 0, 0, 0), np.float32)
        stacked = torch.stack(list(rows))
        array: latent_files.Array = (stacked.half() if self._half else stacked).numpy()
        return array


class StoredInverter:
    """Gives every image the latent that a run has stored, at no network evaluation."""

    def __init__(
        self,
        stored: StoredLatents,
        grid: Grid,
        sampler: Sampler,
        *,
        last: int,
        keep: frozenset[int],
        device: torch.device,
    ) -> None:
        self._stored = stored
        self._grid = grid
        self._timestep = grid.timestep(last)
        """Where decoding begins: where the inversion stopped, or at a stored x_t below."""
        self._keep = tuple(grid.timestep(node) for node in keep)
        """Whose x_t discovery will ask for."""
        self._fresh = sampler.fresh_nodes(grid, last)
        self._device = device
        self._failed = {index: (kind, message) for index, kind, message in stored.failed}

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        """Rejects what could not be inverted with the words of then, and as `no_latent` an image
        of which no latent is stored.
        """
        for sample in items:
            row = self._stored.row(sample.index)
            if row is not None and self._is_of(sample, row):
                x_LYX = {t: self._tensor(self._x(t)[row]) for t in self._keep}
                yield Inverted(sample, self._latent(sample, row), x_LYX)
            else:
                kind, message = self._failed.get(sample.index, ("no_latent", _NO_LATENT))
                reject(Failure(sample.shard, sample.index, sample.key, "invert", kind, message))

    def _is_of(self, sample: Sample, row: int) -> bool:
        return bytes(self._stored.image_sha256_N[row]) == bytes(_image_sha256(sample))

    def _latent(self, sample: Sample, row: int) -> Latent:
        stored = self._stored
        if stored.timestep == self._timestep:
            dtype: torch.dtype = getattr(torch, str(stored.source["states_dtype"]))
            states_SLYX = self._tensor(stored.states_NSLYX[row], dtype)
        else:
            states_SLYX = self._tensor(self._x(self._timestep)[row])[None]
        noises = {
            self._grid.timesteps.index(t) + 1: self._tensor(z_NLYX[row])
            for t, z_NLYX in stored.noises.items()
            if t <= self._timestep
        }
        seed = noise_seed(sample.shard, sample.index)
        for node in self._fresh:
            (z_LYX,) = seeded_noise([seed], node, states_SLYX.shape[1:])
            noises[node] = z_LYX.to(self._device)
        return Latent(states_SLYX, noises)

    def _x(self, t: int) -> latent_files.Array:
        """x_t of all images, (N, L, Y, X)."""
        at_top = t == self._stored.timestep and t not in self._stored.x
        return self._stored.states_NSLYX[:, 0] if at_top else self._stored.x[t]

    def _tensor(self, array: latent_files.Array, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(array).to(self._device, dtype, copy=True)


_NO_LATENT = "expected the run that stored latents to hold one of this image, found none"


@dataclass(frozen=True, slots=True)
class _Kept:
    """Of one image; without the image, which is large."""

    index: int
    image_sha256: latent_files.Array
    latent: Latent
    states_LYX: Mapping[int, Tensor]


def _kept(inverted: Inverted, without: frozenset[int]) -> _Kept:
    """On the CPU, without the noises of some nodes."""
    sample, latent = inverted.sample, inverted.latent
    noises = {node: z.cpu() for node, z in latent.noises.items() if node not in without}
    x_LYX = {t: x.cpu() for t, x in inverted.states_LYX.items()}
    kept = Latent(latent.states_SLYX.cpu(), noises)
    return _Kept(sample.index, _image_sha256(sample), kept, x_LYX)


def _rounded(x: Tensor) -> Tensor:
    return x.half().to(x.dtype)


def _is_finite(inverted: Inverted) -> bool:
    states = inverted.states_LYX.values()
    return inverted.latent.is_finite and all(bool(torch.isfinite(x).all()) for x in states)


def _image_sha256(sample: Sample) -> latent_files.Array:
    digest = hashlib.sha256(sample.image_CHW.contiguous().numpy().tobytes()).digest()
    return np.frombuffer(digest, np.uint8)
