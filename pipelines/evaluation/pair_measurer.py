"""Any two sets of image shards, matched by key: every edited sample against its original.

Shape suffixes: B = 1 edit, C colours, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from lib.files import parquet, storage
from lib.files.image_files import ImageError
from lib.files.images import decode_whole, decode_whole_mask
from lib.files.samples import (
    RawSample,
    SampleError,
    ShardContents,
    ShardDamage,
    image_member,
    read_shard,
)
from lib.metrics.changes import edit_changes
from lib.metrics.similarity import ssim
from lib.models.kernels import settle
from lib.pixels import as_floats, psnr
from lib.receipts import Failure
from pipelines.engine import chosen_device
from pipelines.evaluation.image_measurer import ImageMeasurer
from pipelines.evaluation.measured_rows import MeasuredRows
from pipelines.evaluation.orders import Order, PairSource, Receipt
from pipelines.evaluation.run_pictures import MAX_SHARD_BYTES
from pipelines.evaluation.shard_measurer import receipt

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 100_000_000
OF_MASK = ("in_change", "out_change", "in_l2", "out_l2", "in_ssim", "out_ssim", "roir")
OF_WHOLE = ("l1", "l2", "psnr", "ssim")


class PairMeasurer:
    """Measures shards of edited samples; raises ModelProblem or ConfigProblem where a model cannot
    be used.
    """

    def __init__(self, order: Order) -> None:
        if not isinstance(order.source, PairSource):
            raise TypeError(f"expected the order of two sets of shards, got {order.source}")
        settle(1)
        self._source = order.source
        self._urls = dict(order.source.edited)
        self._files = order.files
        self._measures = order.measures
        self._measurer = ImageMeasurer(self._measures, chosen_device("auto"))
        self._shard_of = read_keys(order)

    def __call__(self, shard: str) -> Receipt:
        """A shard that cannot be read is a problem in the receipt, and nothing is written."""
        rows = MeasuredRows(pair_columns(self._source.masks is not None, self._measures.columns))
        try:
            contents = contents_of(self._urls[shard], shard)
            originals = dict(self._originals(contents.samples))
        except (OSError, ShardDamage) as error:
            return Receipt(shard, problem=storage.redact(f"shard {shard}: {error}"))
        for failure in contents.failures:
            rows.add_failure(failure)
        for raw in contents.samples:
            try:
                self._add(rows, raw, originals)
            except (ImageError, SampleError) as error:
                place = (shard, raw.index, raw.key)
                rows.add_failure(Failure(*place, "evaluate", error.kind, str(error)))
            except ValueError as error:
                place = (shard, raw.index, raw.key)
                rows.add_failure(Failure(*place, "evaluate", "unsupported", str(error)))
        self._files.write(shard, rows.table)
        return receipt(shard, rows)

    def _originals(self, samples: tuple[RawSample, ...]) -> Iterator[tuple[str, RawSample]]:
        """Of the keys of a shard, reading each shard of originals once."""
        wanted: dict[int, set[str]] = {}
        for raw in samples:
            place = self._shard_of.get(raw.key)
            if place is not None:
                wanted.setdefault(place, set()).add(raw.key)
        for place in sorted(wanted):
            url = self._source.originals[place]
            for raw in contents_of(url, storage.basename(url)).samples:
                if raw.key in wanted[place]:
                    yield raw.key, raw

    def _add(self, rows: MeasuredRows, raw: RawSample, originals: Mapping[str, RawSample]) -> None:
        if raw.key not in self._shard_of:
            raise SampleError("no_original", f"no original has the key {raw.key!r}")
        if self._shard_of[raw.key] is None:
            raise SampleError("ambiguous", f"several originals have the key {raw.key!r}")
        if raw.key not in originals:
            raise SampleError("no_original", f"the original of {raw.key!r} cannot be read")
        before, masks = originals[raw.key], self._source.masks
        claimed = () if masks is None else (masks,)
        edited_HWC = decode_whole(raw.files[image_member(raw, claimed)], max_pixels=MAX_PIXELS)
        member = image_member(before, claimed)
        original_HWC = _at_size(
            decode_whole(before.files[member], max_pixels=MAX_PIXELS), edited_HWC
        )
        original_CHW, edited_CHW = _floats(original_HWC), _floats(edited_HWC)
        values = whole_changes(original_CHW, edited_CHW)
        if masks is not None:
            data = before.files.get(masks.lower()) or raw.files.get(masks.lower())
            if data is None:
                raise SampleError("no_mask", f"neither sample of {raw.key!r} has a file .{masks}")
            size = (edited_HWC.shape[1], edited_HWC.shape[0])
            mask_HW = torch.from_numpy(decode_whole_mask(data, size=size, max_pixels=MAX_PIXELS))
            inside = edit_changes(edited_CHW[None], original_CHW, original_CHW, mask_HW[None])[0]
            values |= {name: inside[name] for name in OF_MASK}
        known = self._measurer(original_CHW, edited_CHW[None])
        if known.original_E is not None:
            rows.add_original(raw.index, raw.key, known.original_E)
        own_E = None if known.edited_BE is None else known.edited_BE[0]
        rows.add_edit(raw.index, raw.key, 0, {**values, **known.values[0]}, own_E)


def pair_columns(masked: bool, own: tuple[str, ...]) -> tuple[str, ...]:
    """Names of all that is measured of a pair."""
    return (*OF_WHOLE, *(OF_MASK if masked else ()), *own)


def whole_changes(original_CHW: Tensor, edited_CHW: Tensor) -> dict[str, float | None]:
    """L1, L2, PSNR in dB and SSIM between two images in [-1, 1]."""
    moved_CHW = edited_CHW - original_CHW
    return {
        "l1": float(moved_CHW.abs().mean()),
        "l2": float(moved_CHW.square().mean()),
        "psnr": psnr(edited_CHW, original_CHW),
        "ssim": float(ssim(edited_CHW[None], original_CHW[None])),
    }


def contents_of(url: str, shard: str) -> ShardContents:
    """The samples of a shard, as many as can be read.

    Raises:
        OSError: it is not there.
        ShardDamage: it has no sample at all.
    """
    data = storage.read_bytes(url, max_bytes=MAX_SHARD_BYTES)
    return read_shard(data, shard, max_bytes=2 * MAX_SHARD_BYTES, salvage=True)


def keys_url(order: Order) -> str:
    """Where the keys of the originals lie, once they are known."""
    return storage.join(order.folder, "keys", f"{order.identity[:16]}.parquet")


def read_keys(order: Order) -> dict[str, int | None]:
    """Key -> position of its shard among the originals; None where several have it."""
    url = keys_url(order)
    table: pa.Table = parquet.decode(storage.read_bytes(url), url)
    return dict(zip(table["key"].to_pylist(), table["shard"].to_pylist(), strict=True))


def _at_size(
    original_HWC: Pixels,
    edited_HWC: Pixels,
) -> Pixels:
    """The original at the size of the edited image (Lanczos); refuses another shape."""
    (rows, columns), (height, width) = original_HWC.shape[:2], edited_HWC.shape[:2]
    if (rows, columns) == (height, width):
        return original_HWC
    if abs(columns * height / rows - width) >= 1:
        raise ImageError(
            "size",
            f"the original has {columns} x {rows} pixels, the edited image {width} x {height};"
            " expected the same, or a multiple or fraction of it",
        )
    resized = Image.fromarray(original_HWC).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(resized, dtype=np.uint8)


def _floats(image_HWC: Pixels) -> Tensor:
    return as_floats(torch.from_numpy(image_HWC).permute(2, 0, 1))
