"""The memory of a worker, reckoned by hand."""

from __future__ import annotations

import gzip
from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import UNet2DModel

from lib.models.checkpoint import open_checkpoint
from lib.models.safetensor_files import float32_bytes
from pipelines.config import RunConfig
from pipelines.inputs import expand_inputs
from pipelines.memory_budget import ShardSize, largest_shard, memory_budget, stated_budget


def test_every_part_is_what_the_config_lets_a_worker_hold(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    made = shards.config(tiny_checkpoint, "in.tar", tmp_path / "run")
    found = memory_budget(made, ShardSize(bytes=1_000_000, images=50))
    network = UNet2DModel.from_pretrained(tiny_checkpoint / "unet")
    assert found.weights == 4 * sum(p.numel() for p in network.parameters())
    assert found.input == 4 * 1_000_000, "two shards, each as tar and as files"
    # Images of 16 x 16: 26 decoded (3 batches of 4 of two shards, and two threads'); 4 with the
    # model and 7 behind it, each with a mask and three edited images (one the reconstruction).
    image, mask, edited = 3 * 4 * 256, 4 * 256, 3 * 256
    assert found.images == round(4.0 * (26 * image + 11 * (image + mask + 3 * edited)))
    # Of each of 50 images of two shards: a row, one direction of 32 x 8 x 8 twice, two edits.
    edit = round(1.6 * 256) + 2400 + 6000
    assert found.output == 2 * 50 * (6000 + 2 * 4 * 32 * 64 + 2 * edit)
    parts = found.libraries + found.weights + found.input + found.images + found.output
    assert found.host == parts


def test_half_precision_on_disk_is_whole_in_memory(tiny_checkpoint: Path, tmp_path: Path) -> None:
    whole = sum(map(float32_bytes, open_checkpoint(str(tiny_checkpoint)).unet.weights))
    network = UNet2DModel.from_pretrained(tiny_checkpoint / "unet", dtype=torch.float16)
    network.to(torch.float16).save_pretrained(tmp_path / "unet")
    (file,) = (tmp_path / "unet").glob("*.safetensors")
    assert file.stat().st_size < 0.6 * whole
    assert float32_bytes(file) == whole


@pytest.mark.parametrize("compressed", [False, True])
def test_the_beginning_of_one_shard_and_the_sizes_of_some_tell_the_largest(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, compressed: bool
) -> None:
    ending = "tar.gz" if compressed else "tar"
    for number, pictures in enumerate((40, 80, 20)):
        of = [shards.sample(str(n), n, width=64, height=64) for n in range(pictures)]
        data = shards.tar_bytes([member for members in of for member in members])
        path = tmp_path / "in" / f"{number}.{ending}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(data) if compressed else data)
    made = shards.config(tiny_checkpoint, tmp_path / "in" / f"*.{ending}", tmp_path / "run")
    found = largest_shard(made, expand_inputs(made.input.shards))
    assert found is not None
    assert found.bytes == (tmp_path / "in" / f"1.{ending}").stat().st_size
    assert found.images == pytest.approx(80, rel=0.15)


def test_inputs_that_cannot_be_read_leave_nothing_to_say(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "in.tar").write_bytes(b"words")
    made: RunConfig = shards.config(tiny_checkpoint, tmp_path / "in.tar", tmp_path / "run")
    inputs = expand_inputs(made.input.shards)
    assert largest_shard(made, inputs) is None
    assert stated_budget(made, inputs) == ""


@pytest.mark.parametrize(
    ("device", "words"),
    [("cpu", "and the activations of one batch"), ("cuda", "of weights and the activations")],
)
def test_the_sentence_says_where_the_network_is(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path, device: str, words: str
) -> None:
    shard = shards.write_tar(tmp_path / "in.tar", shards.samples(3))
    made = shards.config(
        tiny_checkpoint, shard, tmp_path, execution={"engine": "local", "device": device}
    )
    said = stated_budget(made, expand_inputs(made.input.shards))
    assert said.startswith("memory of a worker: at most ")
    assert words in said
