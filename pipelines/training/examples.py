"""The examples of a training, prepared where no other worker of the machine has done it: decoded,
and inverted where the training starts from inverted images. What does not change is computed once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from lib.denoiser import Denoiser
from lib.ledger.run_folder import RunFolder
from lib.receipts import Failure
from lib.sampling.ddim import inversion
from lib.sampling.grid import Grid
from pipelines.inputs import ShardInput
from pipelines.training.config import TrainConfig
from pipelines.training.example_reading import Example, Findings, read_examples, refuse_nothing
from pipelines.training.example_store import Examples, ExampleWriter, locked, opened
from pipelines.training.objective_config import target_file
from pipelines.training.stored_states import StoredStates

_BATCH = 8


def prepared_examples(
    config: TrainConfig,
    shards: Sequence[ShardInput],
    denoiser: Denoiser,
    grid: Grid,
    nodes: Sequence[int],
    folder: Path,
) -> Examples:
    """Those in `folder`, made first if they are not there; x_t at `nodes`, in their order, where
    the config starts from inverted images.

    Raises:
        ConfigProblem: no image can be used.
    """
    with locked(folder):
        found = opened(folder)
        if found is None:
            _prepare(config, shards, denoiser, grid, nodes, folder)
            found = opened(folder)
    if found is None:
        raise OSError(f"{folder}: what was written there is gone")
    return found


def _prepare(
    config: TrainConfig,
    shards: Sequence[ShardInput],
    denoiser: Denoiser,
    grid: Grid,
    nodes: Sequence[int],
    folder: Path,
) -> None:
    findings, writer, count = Findings(), ExampleWriter(folder), 0
    examples = read_examples(
        config.input,
        shards,
        image_size=denoiser.image_size,
        target_file=target_file(config.objective),
        findings=findings,
    )
    latent_model = denoiser.latent_shape != (3, denoiser.image_size, denoiser.image_size)
    inverted = _inverts(config)
    stored = None
    if inverted and config.training.latents is not None:
        stored = StoredStates(RunFolder(config.training.latents), grid, nodes)
    while batch := list(islice(examples, _BATCH)):
        states_B: Sequence[Tensor | Failure | None] = [None] * len(batch)
        image_BCHW = torch.stack([example.sample.image_CHW for example in batch])
        latent_BLYX = _latents(denoiser, image_BCHW) if latent_model or inverted else None
        if stored is not None:
            states_B = [stored.of(e.sample, findings.hashes[e.sample.shard]) for e in batch]
        elif inverted and latent_BLYX is not None:
            states_B = _states(config, denoiser, grid, nodes, latent_BLYX, batch)
        for row, (example, states) in enumerate(zip(batch, states_B, strict=True)):
            if isinstance(states, Failure):
                findings.failures.append(states)
                continue
            latent_LYX = latent_BLYX[row] if latent_model and latent_BLYX is not None else None
            writer.add(example.sample.image_CHW, example.target_CHW, latent_LYX, states)
            count += 1
    refuse_nothing(count, findings)
    writer.finish(findings)


def _inverts(config: TrainConfig) -> bool:
    return config.training.style == "unrolled" or config.training.x_t == "inverted"


@torch.no_grad()
def _latents(denoiser: Denoiser, image_BCHW: Tensor) -> Tensor:
    return denoiser.latent(image_BCHW.to(denoiser.device))


@torch.no_grad()
def _states(
    config: TrainConfig,
    denoiser: Denoiser,
    grid: Grid,
    nodes: Sequence[int],
    latent_BLYX: Tensor,
    batch: Sequence[Example],
) -> list[Tensor | Failure | None]:
    """(S, L, Y, X) of each example, on the CPU, or why it has none."""
    steps = inversion(
        denoiser.predict,
        grid,
        latent_BLYX,
        last=max(nodes),
        refinements=config.training.refinements,
    )
    seen = {node: x_BLYX.cpu() for node, x_BLYX in steps if node in set(nodes)}
    states_BSLYX = torch.stack([seen[node] for node in nodes], dim=1)
    found: list[Tensor | Failure | None] = []
    for states_SLYX, example in zip(states_BSLYX, batch, strict=True):
        if bool(torch.isfinite(states_SLYX).all()):
            found.append(states_SLYX)
            continue
        sample = example.sample
        message = "the network gave NaN or infinity while this image was inverted"
        where = (sample.shard, sample.index, sample.key)
        found.append(Failure(*where, "invert", "not_finite", message))
    return found
