"""The most memory that one worker holds, from the config, the checkpoint's files and the sizes of a
few shards. No torch, no ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from lib.files import storage
from lib.files.samples import ShardDamage, read_shard
from lib.models.checkpoint import Checkpoint
from lib.models.safetensor_files import float32_bytes
from lib.problems import ConfigProblem
from lib.sampling.grid import renoised_nodes
from pipelines.config import RunConfig
from pipelines.discovery_work import DiscoveryWork, discovery_work, step_shape
from pipelines.inputs import ShardInput
from pipelines.model_source import open_model
from pipelines.number_texts import size
from pipelines.output_sizes import edit_bytes
from pipelines.planned_edits import planned_choices
from pipelines.stored_runs import config_timesteps, latent_bytes
from pipelines.worker_threads import BATCHES_AHEAD, DECODERS, backlog_limit

_LIBRARIES = 600_000_000
"""Python with torch, diffusers, pyarrow and ray: 0.54 GB without ray and 0.57 GB with it, resident
after shards of tiny images on Linux without a GPU. CUDA's own libraries come on top.
"""
_ALLOCATOR = 4.0
"""What images take of the C library's heap, over their size: up to 3.1 were seen where encoding was
far behind, because threads hand large buffers to one another and each has its own arena.
"""
_ROW_BYTES = 6_000
"""Of an edit's row of the manifest, as Python holds it."""
_SHARDS_AT_ONCE = 2
LOOKED_AT = 16
_START = 1_000_000


@dataclass(frozen=True, slots=True)
class ShardSize:
    """Of one input shard."""

    bytes: int
    images: int


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Bytes, at most, without the activations of the network."""

    libraries: int
    weights: int
    """Of all networks, float32."""
    input: int
    """Two shards, each as tar and as files."""
    images: int
    """Decoded ahead, with the model, and waiting to be encoded."""
    output: int
    """What two shards leave, encoded, with rows, directions and latents."""
    device: str
    """`execution.device`: where weights and activations are."""

    @property
    def host(self) -> int:
        """In the machine's memory; the weights pass through it on their way to a GPU."""
        return self.libraries + self.weights + self.input + self.images + self.output

    def sentence(self) -> str:
        """What is printed when a run starts."""
        names = ("libraries", "weights", "input", "images", "output")
        parts = ", ".join(f"{name} {size(getattr(self, name))}" for name in names)
        where = {
            "cpu": "and the activations of one batch",
            "cuda": f"and {size(self.weights)} of weights and the activations of one batch on its"
            " GPU",
        }.get(self.device, "and, on a GPU if there is one, weights and activations of one batch")
        return f"memory of a worker: at most {size(self.host)} ({parts}), {where}"


def memory_budget(config: RunConfig, largest: ShardSize) -> MemoryBudget:
    """For a worker that meets no shard larger than `largest`.

    Raises:
        ModelProblem: the checkpoint cannot be used.
        ConfigProblem: a library or the plan of edits does not fit.
    """
    checkpoint = open_model(config.model)
    pixels = checkpoint.image_size**2
    image = 3 * 4 * pixels
    per_image = _image_output(config, checkpoint)
    decoded = _SHARDS_AT_ONCE * BATCHES_AHEAD * config.invert.batch_size + DECODERS
    masks = 4 * pixels * max(1, len(config.segment.regions))
    made = image + masks + 3 * pixels * (1 + _edits(config))
    working = config.invert.batch_size + backlog_limit(config)
    return MemoryBudget(
        libraries=_LIBRARIES,
        weights=sum(map(float32_bytes, _weights(config, checkpoint))),
        input=_SHARDS_AT_ONCE * 2 * largest.bytes,
        images=round(_ALLOCATOR * (decoded * image + working * made)),
        output=_SHARDS_AT_ONCE * largest.images * per_image,
        device=config.execution.device,
    )


def largest_shard(config: RunConfig, inputs: Sequence[ShardInput]) -> ShardSize | None:
    """The largest of some shards spread over `inputs`, with as many images as its bytes hold of
    the first shard's beginning; None where none can be looked at.
    """
    step = max(1, len(inputs) // LOOKED_AT)
    found, bytes_an_image = 0, 0.0
    for shard in inputs[::step][:LOOKED_AT]:
        try:
            found = max(found, storage.info(shard.url).size)
            if not bytes_an_image:
                start = storage.read_start(shard.url, _START)
                limit = config.input.max_shard_bytes
                held = read_shard(start, shard.name, max_bytes=limit, salvage=True)
                bytes_an_image = len(start) / held.n_in
        except (OSError, ShardDamage):
            continue  # the run will name it; this only looks
    if not bytes_an_image:
        return None
    limit = min(found, config.input.max_shard_bytes)
    return ShardSize(limit, round(limit / bytes_an_image))


def _image_output(config: RunConfig, checkpoint: Checkpoint) -> int:
    """What an image leaves in memory until its shard is committed."""
    timesteps = config_timesteps(config)
    latents = 2 * latent_bytes(config, checkpoint, timesteps)
    if config.pipeline == "region_model":
        return _ROW_BYTES
    if config.pipeline == "store_latents":
        return _ROW_BYTES + latents
    work = discovery_work(config, timesteps)
    steps = max(1, len(work.nodes))
    vectors = 2 * work.found * steps * 4 * prod(step_shape(checkpoint, work.space))
    if work.kept_rows:  # h of every image, until it is known which rows stay
        vectors = steps * 4 * prod(step_shape(checkpoint, work.space))
    edits = _edits(config, work) * (edit_bytes(config, checkpoint) + _ROW_BYTES)
    return _ROW_BYTES + edits + vectors + latents


def _edits(config: RunConfig, work: DiscoveryWork | None = None) -> int:
    """Of an image, at most."""
    if config.pipeline != "edit_dataset":
        return 0
    timesteps = config_timesteps(config)
    if config.edit.method == "sdedit":
        nodes = renoised_nodes(timesteps, config.edit.sdedit.timesteps)
        return len(nodes) * config.edit.sdedit.seeds
    work = work or discovery_work(config, timesteps)
    choices = len(planned_choices(config, work.candidates))
    return min(choices, config.edit.plan.sample or choices)


def _weights(config: RunConfig, checkpoint: Checkpoint) -> list[Path]:
    """The safetensors files of the diffusion model and of the networks beside it."""
    text = None if checkpoint.text is None else checkpoint.text.encoder
    parts = [p for p in (checkpoint.unet, checkpoint.autoencoder, text) if p is not None]
    evaluate = config.evaluate
    beside = [getattr(p, "model", None) for p in config.segment.providers.values()]
    beside += [getattr(score, "model", None) for score in evaluate.scores.values()]
    beside += [getattr(config.discover, key, None) for key in ("model", "classifier")]
    beside.append(evaluate.attributes.classifier if evaluate.attributes else None)
    folders = {Path(path) for path in beside if path is not None}
    found = [file for part in parts for file in part.weights]
    return found + [file for folder in sorted(folders) for file in folder.glob("*.safetensors")]


def stated_budget(config: RunConfig, inputs: Sequence[ShardInput]) -> str:
    """The sentence for a run over `inputs`; "" where none of its shards can be looked at."""
    largest = largest_shard(config, inputs)
    try:
        return "" if largest is None else memory_budget(config, largest).sentence()
    except ConfigProblem:  # a worker that starts says what is wrong
        return ""
