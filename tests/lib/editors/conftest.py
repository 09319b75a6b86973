"""The record of a learned editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lib.editors.editor_record import EditorRecord


@pytest.fixture
def record() -> Callable[..., EditorRecord]:
    """A direction_fn of 32 channels, or what the changes make of it."""

    def made(**changes: Any) -> EditorRecord:
        values: dict[str, Any] = {
            "id": "0123456789abcdef",
            "type": "direction_fn",
            "label": "smile ü",
            "region": "mouth",
            "purpose": "editing",
            "method": "asyrp",
            "model": "m" * 64,
            "h_layer": "after",
            "timesteps": (900, 600, 300),
            "window": (950, 250),
            "h_norms": (9.5, 10.25, 12.0),
            "lengths": (),
            "unit_strength": 0.5,
            "shape": (32, 4, 4),
            "architecture": {"ignores_time": False},
            "parameters": {"objective": {"kind": "clip", "weights": [1.0, 0.3]}, "seed": 4},
            "data_sha256": "d" * 64,
            "images": 12,
            "steps": 300,
            "losses": {"clip": (0.9, 0.4), "identity": (0.0, 0.1)},
            "fingerprint": "f" * 64,
            "parents": ("fedcba9876543210",),
        }
        return EditorRecord(**values | changes)

    return made
