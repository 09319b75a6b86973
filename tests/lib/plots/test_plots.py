"""Plots are files that a reader of their format accepts, say what the data say, and are the same
every time.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
import pytest

from lib.plots.lines import against_strength, singular_values
from lib.plots.locality import locality
from lib.plots.matrix import disentanglement
from lib.plots.style import SCHEMES, FileKind, SchemeName

EVIL = "<script>&\x00\n$\\frac{"
Draw = Callable[[SchemeName, FileKind], bytes]


def spectra(scheme: SchemeName, kind: FileKind) -> bytes:
    values = {EVIL: [(rank, np.array([4.0, 2.0, 1.0]) / (1 + rank)) for rank in range(3)]}
    return singular_values(values | {"mouth": [(0, np.array([1.0, np.nan, 0.0]))]}, scheme, kind)


def strengths(scheme: SchemeName, kind: FileKind) -> bytes:
    series = {name: [(s, np.array([s, 2 * s])) for s in (-0.1, 0.1)] for name in ("eyes", EVIL)}
    return against_strength(series, scheme, kind, measured=EVIL)


def scatter(scheme: SchemeName, kind: FileKind) -> bytes:
    inside = np.array([0.1, 0.2, np.nan, 0.3, 0.0])
    outside = np.array([0.01, 0.1, 0.1, 0.3, 0.1])
    return locality({"eyes": (inside, outside), EVIL: (inside, 2 * outside)}, scheme, kind)


def matrix(scheme: SchemeName, kind: FileKind) -> bytes:
    effects = np.array([[0.5, -0.25, 0.0], [np.nan, -0.0001, 0.125]])
    edits, attributes = ["eyes/0", EVIL], ["gaze", "smile", "a" * 40]
    return disentanglement(effects, edits, attributes, ["gaze", "smile"], scheme, kind)


PLOTS: dict[str, Draw] = {
    "spectra": spectra, "strengths": strengths, "scatter": scatter, "matrix": matrix,
}  # fmt: skip


def texts(svg: bytes) -> list[str]:
    root = ET.fromstring(svg.decode())
    return ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_the_same_data_make_the_same_bytes_without_dates(name: str, kind: FileKind) -> None:
    found = PLOTS[name]("light", kind)
    assert found == PLOTS[name]("light", kind)
    assert found != PLOTS[name]("dark", kind)
    assert found.startswith(b"%PDF-" if kind == "pdf" else b"<?xml")
    for word in (b"CreationDate", b"<dc:date", b"Matplotlib v"):
        assert word not in found


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_names_from_data_are_text_and_nothing_else(name: str, scheme: SchemeName) -> None:
    svg = PLOTS[name](scheme, "svg")
    assert b"<script>" not in svg
    assert any(text.strip().startswith("<script>&??$") for text in texts(svg))


def test_a_matrix_says_every_number_and_frames_the_targets() -> None:
    found = texts(matrix("light", "svg"))
    for cell in ("0.50", "\N{MINUS SIGN}0.25", "0.00", "0.12"):
        assert cell in found
    assert "nan" not in " ".join(found)
    assert found.count("0.00") == 2, "0.0 and what rounds to it, without a sign"
    assert "a" * 23 + "…" in found


def test_a_spectrum_counts_ranks_from_1_and_leaves_out_what_is_no_value() -> None:
    found = texts(spectra("light", "svg"))
    assert {"1", "2", "3"} <= set(found)
    assert "0" not in found


def test_lines_of_equal_roir_are_named() -> None:
    assert {"ROIR 0.1", "ROIR 0.3", "ROIR 1"} <= set(texts(scatter("light", "svg")))


def test_many_edits_make_a_file_of_bounded_size() -> None:
    values = np.linspace(0.1, 0.5, 200_000)
    svg = locality({"eyes": (values, values / 3)}, "light")
    assert len(svg) < 600_000


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_nothing_to_show_is_an_empty_plot(scheme: SchemeName) -> None:
    for svg in (
        singular_values({}, scheme),
        against_strength({}, scheme, measured="change"),
        locality({"eyes": (np.array([np.nan]), np.array([1.0]))}, scheme),
        disentanglement(np.full((1, 1), np.nan), ["e"], ["a"], ["a"], scheme),
    ):
        assert texts(svg)


def test_a_change_passes_through_zero_where_nothing_is_edited() -> None:
    """With edits at 0.1 and 0.2 alone the axis begins at 0 all the same."""
    points = [(0.1, np.array([0.3])), (0.2, np.array([0.6]))]
    assert "0" in texts(against_strength({"eyes": points}, "light", measured="change"))
