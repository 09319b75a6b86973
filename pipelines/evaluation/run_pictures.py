"""The pictures of a run again: every image with its stored edits, from the shard that holds both
(layout pairs), or from the run's shard and the input shard (layout edited).

Shape suffixes: B edits of one image, C colours, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from lib.files import storage
from lib.files.image_files import ImageError, open_image
from lib.files.images import decode
from lib.files.samples import RawSample, SampleError, ShardDamage, image_member, read_shard
from lib.files.tar_reader import read_members
from lib.ledger.commit_record import CommitRecord
from lib.ledger.run_folder import RunFolder
from lib.pixels import as_floats
from lib.receipts import Failure
from pipelines.config import RunConfig
from pipelines.segment_agreement import claimed_files

MAX_SHARD_BYTES = 8 * 2**30
_MAX_PIXELS = 100_000_000
_COLUMNS = ["index", "key", "edit", "member"]


@dataclass(frozen=True, slots=True)
class Pictures:
    """An image and its edits, float32 in [-1, 1], at one size."""

    index: int
    key: str
    original_CHW: Tensor
    edits: tuple[int, ...]
    """Their numbers in the manifest."""
    edited_BCHW: Tensor


def run_pictures(
    folder: RunFolder, config: RunConfig, record: CommitRecord, table: pa.Table
) -> Iterator[Pictures | Failure]:
    """Of every image of a committed shard in the order of its rows; a Failure (stage evaluate) for
    one whose pictures are not all there.

    Raises:
        OSError: the run's shard, or the input shard, cannot be read.
        ShardDamage: the input shard is not the file that was edited.
    """
    if not table.num_rows:
        return
    data = storage.read_bytes(folder.url("images", record.image), max_bytes=MAX_SHARD_BYTES)
    members = {m.name: m.data for m in read_members(data, 2 * MAX_SHARD_BYTES).members}
    paired = ".edited." in table["member"][0].as_py()
    inputs = {} if paired else _input_samples(folder, record)
    rows = table.select(_COLUMNS).to_pylist()
    for (index, key), group in groupby(rows, key=lambda row: (row["index"], row["key"])):
        of_image = list(group)
        try:
            edited_BCHW = torch.stack([_stored(members, row["member"]) for row in of_image])
            if paired:
                stem, _, extension = of_image[0]["member"].rpartition(".edited.")
                original_CHW = _stored(members, f"{stem}.original.{extension}")
            else:
                original_CHW = _of_input(inputs, index, config, edited_BCHW.shape[-1])
        except (ImageError, SampleError, RuntimeError) as error:
            kind = getattr(error, "kind", "size")
            yield Failure(record.shard, index, key, "evaluate", kind, str(error))
            continue
        edits = tuple(row["edit"] for row in of_image)
        yield Pictures(index, key, original_CHW, edits, edited_BCHW)


def picture(data: bytes, max_pixels: int = _MAX_PIXELS) -> Tensor:
    """(C, H, W) float32 in [-1, 1] of an image that deltah has written; raises ImageError."""
    image, _ = open_image(data, max_pixels=max_pixels)
    rgb = image.convert("RGB")
    pixels_HWC = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return as_floats(pixels_HWC.view(rgb.height, rgb.width, 3).permute(2, 0, 1))


def _stored(members: Mapping[str, bytes], name: str) -> Tensor:
    if name not in members:
        raise ImageError("missing", f"expected {name} in the run's shard, found none")
    return picture(members[name])


def _input_samples(folder: RunFolder, record: CommitRecord) -> dict[int, RawSample]:
    url = folder.inputs().get(record.shard)
    if url is None:
        raise FileNotFoundError(f"inputs.json does not say where shard {record.shard} lies")
    data = storage.read_bytes(url, max_bytes=MAX_SHARD_BYTES)
    if sha256(data).hexdigest() != record.input_sha256:
        raise ShardDamage("changed", f"{storage.redact(url)} is no longer the file that was edited")
    contents = read_shard(data, record.shard, max_bytes=2 * MAX_SHARD_BYTES, salvage=True)
    return {raw.index: raw for raw in contents.samples}


def _of_input(inputs: Mapping[int, RawSample], index: int, config: RunConfig, size: int) -> Tensor:
    if index not in inputs:
        raise ImageError("missing", f"expected sample {index} in the input shard, found none")
    raw: Any = inputs[index]
    pixels_HWC, _ = decode(
        raw.files[image_member(raw, claimed_files(config.segment))],
        size=size,
        fit=config.input.fit,
        min_side=1,
        max_pixels=config.input.max_pixels,
    )
    return as_floats(torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1))
