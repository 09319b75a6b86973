"""A tiny U-Net, and learned editors whose answers are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.direction import Direction, content_id, stored
from lib.editing.edit_shifts import EditShifts
from lib.editors.editor_record import EditorRecord
from lib.editors.learned_editor import LearnedEditor, NoiseSource, ShiftFunction
from lib.models.unet_denoiser import UNetDenoiser
from lib.sampling.grid import Grid, make_grid, training_alphas

UNIT = 3.0
"""Mean norm of h at every timestep."""


@dataclass
class KnownNoise:
    """A network that answers in closed form, and remembers how many rows it was asked for."""

    slope: float = 0.5
    evaluations: int = 3
    rows: list[int] = field(default_factory=list)

    def noise(self, x_BLYX: Tensor, t: int, x0_LYX: Tensor) -> Tensor:
        self.rows.append(len(x_BLYX))
        return self.slope * x_BLYX + t / 1000 - x0_LYX


@pytest.fixture
def known_noise() -> type[KnownNoise]:
    return KnownNoise


@pytest.fixture
def denoiser(backbones: ModuleType) -> UNetDenoiser:
    alphas_T = [float(a) for a in training_alphas({})]
    return UNetDenoiser(backbones.unet(), alphas_T, "epsilon", "after")


@pytest.fixture
def grid() -> Grid:
    """Timesteps 99, 199, ... 999."""
    return make_grid({}, 10, "trailing")


@pytest.fixture
def shifts(denoiser: UNetDenoiser, grid: Grid) -> Callable[..., EditShifts]:
    """(injection, window, reach)."""

    def made(
        injection: str, window: tuple[int, int] = (799, 399), reach: str = "window"
    ) -> EditShifts:
        unit = dict.fromkeys(grid.timesteps, UNIT)
        return EditShifts(
            grid, window, injection, reach, unit, denoiser.h_shape, denoiser.latent_shape
        )

    return made


@pytest.fixture
def learned() -> Callable[..., LearnedEditor]:
    """Of a function of h or of another network; `unit_strength` 0.5 unless told."""

    def made(
        shift: ShiftFunction | None = None, source: NoiseSource | None = None, **changes: Any
    ) -> LearnedEditor:
        values: dict[str, Any] = {
            "id": "e" * 16,
            "type": "model_delta" if shift is None else "direction_fn",
            "label": "smile",
            "region": "image",
            "purpose": "editing",
            "method": "asyrp",
            "model": "m",
            "h_layer": "after",
            "timesteps": (799, 599, 399),
            "window": (999, 0),
            "h_norms": (),
            "lengths": (),
            "unit_strength": 0.5,
            "shape": (),
            "architecture": {},
            "parameters": {},
            "data_sha256": "",
            "images": 1,
            "steps": 1,
            "losses": {},
            "fingerprint": "",
        }
        return LearnedEditor(EditorRecord(**values | changes), 0, shift, source)

    return made


@pytest.fixture
def direction(denoiser: UNetDenoiser) -> Direction:
    """Of one step, for all timesteps."""
    generator = torch.Generator().manual_seed(8)
    vector_SCYX = stored(torch.randn(1, *denoiser.h_shape, generator=generator), "float32")
    return Direction(
        vector_SCYX=vector_SCYX,
        id=content_id(vector_SCYX, "h", "after", "m", (599,)),
        space="h",
        h_layer="after",
        model="m",
        timesteps=(599,),
        method="jacobian",
        parameters={},
        region="image",
        mask_sha256="",
        shard=None,
        index=None,
        key=None,
        rank=0,
        singular_value=1.0,
        gap=None,
        residual=None,
        angle=None,
        converged=True,
        jvp_count=0,
        vjp_count=0,
        sign_rule="none",
        h_norm=UNIT,
    )
