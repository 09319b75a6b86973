"""A denoiser that is linear in x and h, so that every stage has an answer in closed form, and the
records around it.

Shape suffixes: N = 3 * 4 * 4 entries of the image, D = 8 of h; the rest as in `lib.denoiser`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from lib.denoiser import Denoiser, Point
from lib.direction import Direction
from lib.files.images import Geometry
from lib.records import Discovered, Inverted, Sample, Segmented
from lib.regions import make_region
from lib.sampling.grid import Grid, make_grid
from lib.sampling.sampler import plain_latent

MARK = 0.8125
"""An image (or x_t) whose first entry is exactly this drives the network to NaN."""


class LinearDenoiser:
    """eps(x, t | h) = g(t) (A x + M_t h) with h = W x, g(t) = 1 + t / 1000 and M_t = M + t / 1000
    drift; the drift is zero unless a test sets it.
    """

    def __init__(self, size: int = 4, *, rank: int = 8, seed: int = 0, gain: float = 0.3) -> None:
        self.device = torch.device("cpu")
        self.passes = 1
        self.image_size = size
        self.latent_shape = (3, size, size)
        self.h_shape = (2, 2, 2)
        random = np.random.default_rng(seed)
        entries = 3 * size * size

        def matrix(rows: int, columns: int) -> np.ndarray:
            values = gain * random.standard_normal((rows, columns)) / np.sqrt(columns)
            return values.astype(np.float32).astype(np.float64)

        self.A_NN, self.W_DN = matrix(entries, entries), matrix(8, entries)
        self.M_ND = (
            matrix(entries, rank) @ matrix(rank, 8) / gain if rank < 8 else matrix(entries, 8)
        )
        self.drift_ND = np.zeros_like(self.M_ND)
        self.broken_in: str | None = None
        """The method that gives NaN for marked rows."""
        self.rows: Counter[str] = Counter()
        """Images that went through each method."""
        self.batches: list[int] = []
        """Rows of every call of `predict`."""

    def gain(self, t: int) -> float:
        return 1 + t / 1000

    def latent(self, image_BCHW: Tensor) -> Tensor:
        return image_BCHW

    def image(self, latent_BLYX: Tensor) -> Tensor:
        return latent_BLYX

    def predict(self, x_BLYX: Tensor, t: int) -> Tensor:
        self.rows["predict"] += len(x_BLYX)
        self.batches.append(len(x_BLYX))
        return self._eps("predict", x_BLYX, t, self._h(x_BLYX))

    def predict_shifted(self, x_BLYX: Tensor, t: int, shift_BCYX: Tensor) -> Tensor:
        self.rows["predict_shifted"] += len(x_BLYX)
        return self._eps("predict_shifted", x_BLYX, t, self._h(x_BLYX) + shift_BCYX)

    def encode(self, x_BLYX: Tensor, t: int) -> Point:
        self.rows["encode"] += len(x_BLYX)
        h_BCYX = self._h(x_BLYX)
        return Point(x_BLYX, t, h_BCYX, self._eps("encode", x_BLYX, t, h_BCYX), {})

    def decode(self, point: Point, h_BCYX: Tensor) -> Tensor:
        self.rows["decode"] += len(h_BCYX)
        return self._eps("decode", point.x_BLYX, point.t, h_BCYX)

    def linearised(self, point: Point) -> Callable[[Tensor], Tensor]:
        """The derivative of `decode`; NaN where `decode` gives NaN."""
        origin_BLYX = self._eps("decode", point.x_BLYX, point.t, torch.zeros(1, *self.h_shape))
        return lambda v_KCYX: (
            self._eps("decode", point.x_BLYX.expand(len(v_KCYX), -1, -1, -1), point.t, v_KCYX)
            - origin_BLYX
        )

    def bottleneck(self, x_BLYX: Tensor, t: int) -> Tensor:
        return self._h(x_BLYX)

    def contiguous(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _h(self, x_BLYX: Tensor) -> Tensor:
        W_DN = torch.from_numpy(self.W_DN).float()
        return (x_BLYX.flatten(1) @ W_DN.T).view(-1, *self.h_shape)

    def _eps(self, method: str, x_BLYX: Tensor, t: int, h_BCYX: Tensor) -> Tensor:
        h_BD = h_BCYX.flatten(1)
        if method == self.broken_in:
            marked_B = x_BLYX[:, 0, 0, 0] == MARK
            h_BD = h_BD * torch.where(marked_B, float("nan"), 1.0)[:, None]
        A_NN, M_ND = torch.from_numpy(self.A_NN).float(), torch.from_numpy(self.M_at(t)).float()
        eps_BN = self.gain(t) * (x_BLYX.flatten(1) @ A_NN.T + h_BD @ M_ND.T)
        return eps_BN.view(-1, *self.latent_shape)

    # -- the same in float64, for the expected answers --------------------------------------------

    def E_NN(self, t: int) -> np.ndarray:  # noqa: N802, a matrix
        """eps(x, t) = E x."""
        return self.gain(t) * (self.A_NN + self.M_at(t) @ self.W_DN)

    def M_at(self, t: int) -> np.ndarray:  # noqa: N802, a matrix
        """eps(x, t | h + v) - eps(x, t | h) = g(t) M_t v."""
        return self.M_ND + t / 1000 * self.drift_ND


def step_factors(grid: Grid, node: int) -> tuple[float, float, float]:
    """x' = a x + b eps for a DDIM step from `node` to the node below, and what of b comes from the
    predicted x_0 alone: with P = (x - sqrt(1 - a_t) eps) / sqrt(a_t),
    x' = sqrt(a') P + sqrt(1 - a') eps.
    """
    now, below = grid.alphas[node], grid.alphas[node - 1]
    from_x0 = -np.sqrt(below * (1 - now) / now)
    return np.sqrt(below / now), from_x0 + np.sqrt(1 - below), from_x0


@pytest.fixture
def linear() -> LinearDenoiser:
    return LinearDenoiser()


@pytest.fixture
def make_linear() -> Callable[..., LinearDenoiser]:
    return LinearDenoiser


@pytest.fixture
def factors() -> Callable[[Grid, int], tuple[float, float, float]]:
    return step_factors


@pytest.fixture
def mark() -> float:
    return MARK


@pytest.fixture
def grid() -> Grid:
    return make_grid({}, 6, "trailing")


def make_sample(
    index: int,
    image_CHW: Tensor | None = None,
    *,
    size: int = 4,
    width: int | None = None,
    height: int | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Sample:
    """A sample whose image and seed follow from its index; of a picture of width x height."""
    if image_CHW is None:
        generator = torch.Generator().manual_seed(index)
        image_CHW = torch.rand(3, size, size, generator=generator) - 0.5
    width, height = width or size, height or size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    geometry = Geometry(width, height, left, top, side, side, size, "PNG", "RGB", 1)
    return Sample("s", index, f"k{index}", image_CHW, geometry, files or {}, 1000 + index)


@pytest.fixture(name="sample")
def sample_factory() -> Callable[..., Sample]:
    return make_sample


def make_segmented(
    index: int, x_LYX: Tensor, t: int, masks: Mapping[str, Tensor], image_CHW: Tensor | None = None
) -> Segmented:
    """As if `x_LYX` were both the latent to edit and x_t for discovery."""
    inverted = Inverted(make_sample(index, image_CHW), plain_latent(x_LYX), {t: x_LYX})
    regions = tuple(make_region(name, mask_HW) for name, mask_HW in masks.items())
    return Segmented(inverted, regions)


@pytest.fixture
def segmented() -> Callable[..., Segmented]:
    return make_segmented


def make_direction(
    vector_SCYX: Tensor, region: str = "left", timesteps: tuple[int, ...] = (332,), id_: str = "d"
) -> Direction:
    unit_SCYX = vector_SCYX / vector_SCYX.flatten(1).norm(dim=1)[:, None, None, None]
    return Direction(
        vector_SCYX=unit_SCYX, id=id_, space="h", h_layer="after", model="m", timesteps=timesteps,
        method="test", parameters={}, region=region, mask_sha256="", shard="s", index=0, key="k",
        rank=0, singular_value=1.0, gap=0.0, residual=0.0, angle=0.0, converged=True, jvp_count=0,
        vjp_count=0, sign_rule="", h_norm=1.0,
    )  # fmt: skip


@pytest.fixture
def direction() -> Callable[..., Direction]:
    return make_direction


@pytest.fixture
def discovered() -> Callable[..., Discovered]:
    def make(found: Segmented, *directions: Direction) -> Discovered:
        return Discovered(found, directions, own=True)

    return make


def _checked(denoiser: LinearDenoiser) -> Denoiser:
    """mypy: the fake keeps the interface."""
    return denoiser


@pytest.fixture
def halves() -> dict[str, Tensor]:
    """Two regions: the left and the right half."""
    left_HW = torch.zeros(4, 4)
    left_HW[:, :2] = 1
    return {"left": left_HW, "right": 1 - left_HW}
