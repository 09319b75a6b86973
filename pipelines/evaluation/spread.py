"""How far the edited images as a set lie from the originals: Fréchet and kernel distance of their
embeddings, in all and by region.

Shape suffixes: N images, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from lib.metrics.frechet import Gaussian, frechet_distance, gaussian
from lib.metrics.kernel_distance import Sample, kernel_distance, sample
from lib.metrics.sums import Figure
from pipelines.evaluation.outputs import known
from pipelines.evaluation.run_sums import ALL

FRECHET, KERNEL = "frechet_distance", "kernel_distance"
_ORIGINALS = "\0originals"
"""No scope that there can be."""


@dataclass(slots=True)
class Spread:
    """Sums and samples of embeddings by scope, merged shard by shard."""

    gaussians: dict[str, Gaussian] = field(default_factory=dict)
    samples: dict[str, Sample] = field(default_factory=dict)

    def add(self, shard: str, measured: pa.Table, region_of: dict[tuple[int, int], str]) -> None:
        """The rows of `measured_rows` of one shard; `region_of` (index, edit) -> region."""
        rows = measured.filter(measured["embedding"].is_valid())
        if not rows.num_rows:
            return
        features_NE = np.stack(rows["embedding"].to_numpy()).astype(np.float32)
        places = list(zip(rows["index"].to_pylist(), rows["edit"].to_pylist(), strict=True))
        scopes: dict[str, list[int]] = {}
        for row, (index, edit) in enumerate(places):
            if edit is None:
                scopes.setdefault(_ORIGINALS, []).append(row)
                continue
            for scope in dict.fromkeys((ALL, region_of.get((index, edit)) or ALL)):
                scopes.setdefault(scope, []).append(row)
        for scope, chosen in scopes.items():
            images = [f"{shard}\0{places[row][0]}" for row in chosen]
            drawn = sample(images, [places[row][1] for row in chosen], features_NE[chosen])
            self._merge(scope, gaussian(features_NE[chosen]), drawn)

    def _merge(self, scope: str, more: Gaussian, drawn: Sample) -> None:
        before = self.gaussians.get(scope)
        self.gaussians[scope] = more if before is None else before + more
        known_sample = self.samples.get(scope)
        self.samples[scope] = drawn if known_sample is None else known_sample + drawn

    def figures(self) -> Iterator[tuple[str, str, Figure]]:
        """(scope, metric, figure); nothing where there are fewer than two images of either set."""
        originals = self.gaussians.get(_ORIGINALS)
        if originals is None or originals.count < 2:
            return
        for scope in sorted(self.gaussians):
            edited = self.gaussians[scope]
            if scope == _ORIGINALS or edited.count < 2:
                continue
            distance = frechet_distance(originals, edited)
            yield scope, FRECHET, Figure(distance, np.nan, np.nan, edited.count)
            yield scope, KERNEL, kernel_distance(self.samples[_ORIGINALS], self.samples[scope])

    def record(self, embedding: str) -> dict[str, Any]:
        """What spread.json holds."""
        scopes: dict[str, Any] = {}
        for scope, metric, figure in self.figures():
            scopes.setdefault(scope, {"edited": self.gaussians[scope].count})[metric] = {
                "value": known(figure.value),
                "low": known(figure.low),
                "high": known(figure.high),
            }
        if not scopes:
            return {}
        originals = self.gaussians[_ORIGINALS]
        return {
            "v": 1,
            "embedding": embedding,
            "dimensions": len(originals.total_E),
            "originals": originals.count,
            "scopes": scopes,
        }
