"""Decoding ahead: raw samples to `Sample`s in order, a bounded number of images in front of the
model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future

import torch

from lib.files.images import ImageError, decode
from lib.files.samples import RawSample, SampleError, image_member
from lib.fingerprint import sample_seed
from lib.records import Failure, Sample
from pipelines.config import Input


class SampleReader:
    """Decodes the samples of one shard on `pool` and counts the seconds the caller waited."""

    def __init__(
        self,
        options: Input,
        *,
        image_size: int,
        claimed: frozenset[str],
        fingerprint: str,
        pool: Executor,
        ahead: int,
    ) -> None:
        self._options = options
        self._image_size = image_size
        self._claimed = claimed
        """Side files that are masks, so never the image."""
        self._fingerprint = fingerprint
        self._pool = pool
        self._ahead = ahead
        self.waited_s = 0.0

    def __call__(
        self, raw: Sequence[RawSample], reject: Callable[[Failure], None]
    ) -> Iterator[Sample]:
        """Samples in order; an image that cannot be used is rejected with the decoder's reason."""
        queue: deque[Future[Sample | Failure]] = deque()
        remaining = iter(raw)
        while True:
            while len(queue) < self._ahead and (sample := next(remaining, None)) is not None:
                queue.append(self._pool.submit(self._decode, sample))
            if not queue:
                return
            started = time.perf_counter()
            decoded = queue.popleft().result()
            self.waited_s += time.perf_counter() - started
            if isinstance(decoded, Failure):
                reject(decoded)
            else:
                yield decoded

    def _decode(self, raw: RawSample) -> Sample | Failure:
        try:
            member = image_member(raw, self._claimed)
            pixels_HWC, geometry = decode(
                raw.files[member],
                size=self._image_size,
                fit=self._options.fit,
                min_side=self._options.min_side,
                max_pixels=self._options.max_pixels,
            )
        except (SampleError, ImageError) as error:
            return Failure(raw.shard, raw.index, raw.key, "decode", error.kind, str(error))
        image_CHW = torch.from_numpy(pixels_HWC.copy()).permute(2, 0, 1).float() / 127.5 - 1
        side_files = {name: data for name, data in raw.files.items() if name != member}
        seed = sample_seed(self._fingerprint, raw.shard, raw.index)
        return Sample(raw.shard, raw.index, raw.key, image_CHW, geometry, side_files, seed)
