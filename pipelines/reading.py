"""Decoding ahead: raw samples to `Sample`s in order, a bounded number of images in front of the
model.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, wait
from itertools import islice

import torch

from lib.files.images import ImageError, decode
from lib.files.samples import RawSample, SampleError, image_member
from lib.fingerprint import sample_seed
from lib.records import Failure, Sample
from pipelines.config import Input


class SampleReader:
    """Decodes the samples of shards on `pool`, at most `ahead` of each in front of its taker."""

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

    def begin(self, raw: Sequence[RawSample]) -> Decoding:
        """Start to decode a shard."""
        return Decoding(self._decode, raw, self._pool, self._ahead)

    def __call__(
        self, raw: Sequence[RawSample], reject: Callable[[Failure], None]
    ) -> Iterator[Sample]:
        """Samples in order; an image that cannot be used is rejected with the decoder's reason."""
        return self.begin(raw).samples(reject)

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


class Decoding:
    """One shard on its way: its first images are decoded before anybody asks for them."""

    def __init__(
        self,
        decode: Callable[[RawSample], Sample | Failure],
        raw: Sequence[RawSample],
        pool: Executor,
        ahead: int,
    ) -> None:
        self._decode = decode
        self._raw = raw
        self._pool = pool
        self._ahead = ahead
        self._queue: deque[Future[Sample | Failure]] = deque()
        self.waited_s = 0.0
        """Seconds in which whoever takes the samples waited for them."""
        self.restart()

    def restart(self) -> None:
        """Begin with the first sample again."""
        self.close()
        self._remaining = iter(self._raw)
        self._fill()

    def close(self) -> None:
        """Leave undone what is not begun."""
        for future in self._queue:
            future.cancel()
        self._queue.clear()

    def wait(self, count: int) -> None:
        """Until the next `count` samples are decoded."""
        wait(list(islice(self._queue, count)))

    def samples(self, reject: Callable[[Failure], None]) -> Iterator[Sample]:
        """In order, once; an image that cannot be used is rejected with the decoder's reason."""
        while self._queue:
            started = time.perf_counter()
            decoded = self._queue.popleft().result()
            self.waited_s += time.perf_counter() - started
            self._fill()
            if isinstance(decoded, Failure):
                reject(decoded)
            else:
                yield decoded

    def _fill(self) -> None:
        for raw in islice(self._remaining, self._ahead - len(self._queue)):
            self._queue.append(self._pool.submit(self._decode, raw))
