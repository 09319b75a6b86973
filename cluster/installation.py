"""What holds wherever Ray is started for this project. No ray here."""

from __future__ import annotations

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The folder of the packages."""
OBJECT_STORE_BYTES = 100_000_000
"""Of every machine: no tensor enters Ray's store; its minimum is some 78 MB."""
