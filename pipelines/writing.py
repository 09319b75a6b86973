"""What a shard's edits become: encoded members of the output tar, rows of the manifest, stored
directions.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pyarrow as pa
from torch import Tensor

from lib.direction import Direction
from lib.directions.direction_table import to_table
from lib.files.images import encode
from lib.files.tar_writer import write_tar
from lib.pixels import quantised
from lib.records import Evaluated, Renoised, Sample, Score
from lib.shift import Shift
from pipelines.backlog import Backlog
from pipelines.config import Output
from pipelines.sample_rows import geometry_columns, place_columns

_EXTENSION = {"png": "png", "jpeg": "jpg", "webp": "webp"}
Encoded = tuple[list[tuple[str, bytes]], list[dict[str, Any]]]
"""Tar members and manifest rows of one sample."""


class ShardWriter:
    """Encodes samples in threads while the model goes on, and keeps them in input order."""

    def __init__(
        self,
        options: Output,
        *,
        injection: str,
        window: tuple[int, int],
        inversion: int,
        schema: pa.Schema,
        backlog: Backlog,
    ) -> None:
        self._options = options
        self._injection = injection
        self._window = window
        """Highest and lowest edited timestep."""
        self._inversion = inversion
        """Network evaluations of inverting one image."""
        self._schema = schema
        self._backlog = backlog
        self._encoded: deque[Future[Encoded]] = deque()
        self._directions: list[Direction] = []

    def add(self, evaluated: Evaluated) -> None:
        """Take one sample; returns at once unless encoding is far behind."""
        # Not the record itself, which holds latents on the device.
        sample, scores = evaluated.sample, evaluated.scores
        spent = evaluated.network_evaluations
        self._encoded.append(self._backlog.submit(self._encode, sample, scores, spent))
        self._directions.extend(evaluated.edited.found)

    def finish(self) -> tuple[bytes, pa.Table, pa.Table | None]:
        """The tar (empty without any edit), the manifest rows and the directions found here."""
        rows: list[dict[str, Any]] = []
        images = write_tar(self._members(rows))
        directions = (
            to_table(self._directions, self._options.vector_dtype) if self._directions else None
        )
        table = pa.Table.from_pylist(rows, schema=self._schema)
        return images if rows else b"", table, directions

    def _members(self, rows: list[dict[str, Any]]) -> Iterator[tuple[str, bytes]]:
        """All members in order, each given up when it is taken; the rows are added to `rows`."""
        while self._encoded:
            members, sample_rows = self._encoded.popleft().result()
            rows += sample_rows
            yield from members

    def _encode(self, sample: Sample, scores: Sequence[Score], spent: float) -> Encoded:
        extension = _EXTENSION[self._options.format]
        pairs = self._options.layout == "pairs"
        original = self._image(quantised(sample.image_CHW)) if pairs else b""
        regions = {score.edit.region.name: score.edit.region for score in scores}
        masks = {name: _mask_png(r.mask_HW) for name, r in regions.items()} if pairs else {}
        members, rows = [], []
        for score in scores:
            # The key ends at the first dot, so a dot of the shard's name must not get into it.
            key = f"{sample.shard.replace('.', '-')}-{sample.index:06d}-{score.position:03d}"
            image = self._image(score.edit.image_CHW)
            row = self._row(sample, score, spent, hashlib.sha256(image).hexdigest())
            row["member"] = f"{key}.edited.{extension}" if pairs else f"{key}.{extension}"
            if pairs:
                members += [
                    (row["member"], image),
                    (f"{key}.json", _side_json(row)),
                    (f"{key}.mask.png", masks[score.edit.region.name]),
                    (f"{key}.original.{extension}", original),
                ]
            else:
                members += [(f"{key}.json", _side_json(row)), (row["member"], image)]
            rows.append(row)
        return members, rows

    def _image(self, image_CHW: Tensor) -> bytes:
        pixels_HWC = np.ascontiguousarray(image_CHW.permute(1, 2, 0).numpy())
        return encode(pixels_HWC, self._options.format, self._options.quality)

    def _row(self, sample: Sample, score: Score, spent: float, sha256: str) -> dict[str, Any]:
        edit = score.edit
        return {
            **place_columns(sample),
            "edit": score.position,
            "image": "",
            "sha256": sha256,
            "region": edit.region.name,
            "mask_sha256": edit.region.mask_sha256,
            "mask_area": float(edit.region.mask_HW.mean()),
            "injection": self._injection,
            "t_high": self._window[0],
            "t_low": self._window[1],
            **_how(edit.shift),
            **score.metrics,
            "filtered": score.filtered,
            "network_evaluations": self._inversion + spent,
            **geometry_columns(sample),
        }


def _how(shift: Shift | Renoised) -> dict[str, Any]:
    """The columns that say what made the edit."""
    if isinstance(shift, Renoised):
        columns: dict[str, Any] = {"direction": None, "rank": None, "strength": shift.level}
        columns |= {"noise": shift.noise, "t_high": shift.timestep}
        added: tuple[Shift, ...] = ()
    else:
        direction, added = shift.direction, shift.added
        columns = {"direction": direction.id, "rank": direction.rank, "strength": shift.strength}
        columns["noise"] = None
    return columns | {
        "added_directions": [term.direction.id for term in added],
        "added_regions": [term.direction.region for term in added],
        "added_ranks": [term.direction.rank for term in added],
        "added_strengths": [term.strength for term in added],
    }


def _side_json(row: Mapping[str, Any]) -> bytes:
    """The row without what the reader of a tar already holds, and without its cost: a run from
    stored latents makes the same tar for less.
    """
    left_out = ("image", "member", "sha256", "network_evaluations")
    kept = {k: v for k, v in row.items() if k not in left_out}
    rounded = {
        k: (round(v, 6) if math.isfinite(v) else None) if isinstance(v, float) else v
        for k, v in kept.items()
    }
    return (json.dumps(rounded, sort_keys=True) + "\n").encode()


def _mask_png(mask_HW: Tensor) -> bytes:
    grey_HW = (mask_HW * 255).round().byte()
    return encode(
        np.ascontiguousarray(grey_HW.expand(3, -1, -1).permute(1, 2, 0).numpy()), "png", 100
    )
