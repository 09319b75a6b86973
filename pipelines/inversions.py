"""The invert stage of every shard: the network's own work, or what another run has stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lib.files import latent_files, storage
from lib.files.latent_files import LatentDamageError, StoredLatents
from lib.files.samples import ShardDamage
from lib.ledger.commit_record import CommitDamageError, CommitRecord, read_commit
from lib.ledger.run_folder import RunFolder
from lib.records import Failure, Inverted, Sample
from lib.sampling.grid import Grid
from lib.sampling.sampler import Sampler
from tasks.invert import Inverter
from tasks.reconstruct import Reconstructor
from tasks.stored_latents import InvertStage, LatentKeeper, StoredInverter


@dataclass(frozen=True, slots=True)
class ShardInversion:
    """Of one shard."""

    invert: InvertStage
    finish: Callable[[], bytes]
    """The shard's latents file, after its last image; b"" where none is stored."""


@dataclass(frozen=True, slots=True)
class LatentStore:
    """Whether latents are stored, and what the files say of their origin."""

    dtype: str
    """none, float32 or float16; float32 stands for the sampler's own precision."""
    source: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Inversions:
    """Makes the invert stage of every shard of a run."""

    inverter: Inverter
    grid: Grid
    sampler: Sampler
    last: int
    """The node where decoding begins."""
    keep: frozenset[int]
    """Nodes at which discovery asks for x_t."""
    device: torch.device
    store: LatentStore
    reads: bool
    """Whether latents are read instead of inverting."""
    reconstruct: Reconstructor | None
    """Measures every reconstruction, where that is asked for."""

    @property
    def evaluations(self) -> int:
        """Network evaluations an image."""
        inverting = 0 if self.reads else self.inverter.evaluations
        return inverting + (0 if self.reconstruct is None else self.reconstruct.evaluations)

    def of_shard(self, stored: StoredLatents | None) -> ShardInversion:
        """The stage of one shard; `stored` is what was read of its latents, if they are read."""
        found = self._of_shard(stored)
        if self.reconstruct is None:
            return found
        return ShardInversion(_Measured(found.invert, self.reconstruct), found.finish)

    def _of_shard(self, stored: StoredLatents | None) -> ShardInversion:
        if stored is not None:
            stage = StoredInverter(
                stored,
                self.grid,
                self.sampler,
                last=self.last,
                keep=self.keep,
                device=self.device,
            )
            return ShardInversion(stage, bytes)
        if self.store.dtype == "none":
            return ShardInversion(self.inverter, bytes)
        keeper = LatentKeeper(
            self.inverter,
            self.grid,
            self.sampler,
            last=self.last,
            half=self.store.dtype == "float16",
            source=self.store.source,
        )
        return ShardInversion(keeper, keeper.finish)


@dataclass(frozen=True, slots=True)
class _Measured:
    """An invert stage whose latents are reconstructed too."""

    invert: InvertStage
    reconstruct: Reconstructor

    def __call__(
        self, items: Iterable[Sample], reject: Callable[[Failure], None]
    ) -> Iterator[Inverted]:
        return self.reconstruct(self.invert(items, reject))


class NoInversions:
    """Of a flow that inverts nothing."""

    def of_shard(self, stored: StoredLatents | None) -> ShardInversion:
        """A stage that nothing calls."""
        return ShardInversion(_no_inversion, bytes)


def _no_inversion(items: Iterable[Sample], reject: Callable[[Failure], None]) -> Iterator[Inverted]:
    return iter(())


def read_latents(folder: RunFolder, shard: str, input_sha256: str) -> StoredLatents:
    """What a run has stored of a shard, proved whole and of this input; raises ShardDamage."""
    record = _commit(folder, shard)
    if record.input_sha256 != input_sha256:
        raise ShardDamage(
            "latents",
            f"shard {shard} has the sha256 {input_sha256[:16]}, and its latents in"
            f" {storage.redact(folder.root)} are of {record.input_sha256[:16]}; expected the shard"
            " that was inverted there",
        )
    if not record.latents:  # no sample came so far as to be inverted
        return latent_files.EMPTY
    path = f"latents/{record.latents}"
    url = folder.url("latents", record.latents)
    try:
        data = storage.read_bytes(url)
        if hashlib.sha256(data).hexdigest() != record.latents_sha256:
            raise LatentDamageError(f"{path} does not have the content of its commit")
        return latent_files.decode(data, path)
    except (FileNotFoundError, LatentDamageError) as error:
        reason = f"{path} is missing" if isinstance(error, FileNotFoundError) else str(error)
        raise ShardDamage(
            "latents",
            f"shard {shard}: {reason}, in {storage.redact(folder.root)}; store the latents of this"
            " shard again: delete its commit there and run that config again",
        ) from error


def _commit(folder: RunFolder, shard: str) -> CommitRecord:
    try:
        return read_commit(folder.commit_url(shard))
    except FileNotFoundError as error:
        raise ShardDamage(
            "latents",
            f"shard {shard} is not committed in {storage.redact(folder.root)}, expected its latents"
            " there; finish that run first",
        ) from error
    except CommitDamageError as error:
        raise ShardDamage("latents", f"shard {shard}: {error}") from error
