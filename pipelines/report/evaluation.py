"""What `deltah evaluate` left in a run: figures with intervals, the disentanglement matrix,
distances between sets of images, and plots.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lib.files import parquet, storage
from lib.ledger.run_folder import RunFolder

_MAX_SCOPES, _MAX_DIRECTIONS = 12, 40
_MAX_EDITS, _MAX_ATTRIBUTES = 40, 40
_MAX_PLOTS = 40
_PLOTS = "../evaluation/plots"


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether there is an interval; counts have none."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def whole(self) -> bool:
        """Whether it is a count."""
        return self.value == round(self.value, 0) if math.isfinite(self.value) else False


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows by columns of figures; None where one was not measured."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: tuple[tuple[Figure | None, ...], ...]
    units: Mapping[str, str]
    """Row -> unit, where there is one."""
    left_out: int
    """Columns or rows beyond what is shown."""

    @property
    def strongest(self) -> float:
        """The largest absolute value, at least a tiny one."""
        values = [abs(cell.value) for line in self.cells for cell in line if cell is not None]
        return max([value for value in values if math.isfinite(value)], default=1.0) or 1.0


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the edited images as a set lie from the originals, as spread.json has it."""

    embedding: str
    dimensions: int
    originals: int
    distances: Matrix
    """Edited images and distances, by scope."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Files of a plot relative to the page."""

    name: str
    light: str
    dark: str
    """The same where there is no dark one."""
    pdf: str | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All of it; what is not there is None or empty."""

    figures: Matrix | None
    """Of all edits and of each region."""
    by_direction: Matrix | None
    """None where every region has one direction."""
    disentanglement: Matrix | None
    spread: Spread | None
    plots: tuple[Plot, ...]
    failed: int
    """Images that could not be measured: rows of errors.parquet."""

    @property
    def there(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.figures or self.disentanglement or self.spread or self.plots)


def read_evaluation(folder: RunFolder) -> tuple[Evaluation, list[str]]:
    """What lies under evaluation/, and what of it could not be read."""
    notices: list[str] = []
    figures = _table(folder, "figures.parquet", notices)
    regions, directions = _by_scope(figures)
    effects = _table(folder, "disentanglement.parquet", notices)
    failed = _table(folder, "errors.parquet", notices)
    return (
        Evaluation(
            figures=_matrix(regions, "metric", "scope", "value", _MAX_SCOPES, notices),
            by_direction=_matrix(directions, "metric", "scope", "value", _MAX_DIRECTIONS, notices),
            disentanglement=_matrix(
                effects, "edit", "attribute", "effect", _MAX_ATTRIBUTES, notices
            ),
            spread=_spread(folder, notices),
            plots=_plots(folder),
            failed=0 if failed is None else failed.num_rows,
        ),
        notices,
    )


def _plots(folder: RunFolder) -> tuple[Plot, ...]:
    names = set(storage.list_names(folder.url("evaluation", "plots")))
    dark = set(storage.list_names(folder.url("evaluation", "plots", "dark")))
    stems = sorted({name.removesuffix(".svg") for name in names if name.endswith(".svg")})
    return tuple(
        Plot(
            name=stem,
            light=f"{_PLOTS}/{stem}.svg",
            dark=f"{_PLOTS}/dark/{stem}.svg" if f"{stem}.svg" in dark else f"{_PLOTS}/{stem}.svg",
            pdf=f"{_PLOTS}/{stem}.pdf" if f"{stem}.pdf" in names else None,
        )
        for stem in stems[:_MAX_PLOTS]
    )


def _table(folder: RunFolder, name: str, notices: list[str]) -> pa.Table | None:
    url = folder.url("evaluation", name)
    try:
        return parquet.decode(storage.read_bytes(url), url)
    except FileNotFoundError:
        return None
    except (parquet.ParquetError, OSError) as error:
        notices.append(f"evaluation/{name} cannot be read: {storage.redact(str(error))}")
        return None


def _by_scope(figures: pa.Table | None) -> tuple[pa.Table | None, pa.Table | None]:
    """(figures of all edits and of regions, those of directions where these are more)."""
    if figures is None or "scope" not in figures.column_names:
        return figures, None
    direction_N = pc.match_substring(figures["scope"], "/")
    directions = figures.filter(direction_N)
    regions = figures.filter(pc.invert(direction_N))
    several = len(directions["scope"].unique()) >= len(regions["scope"].unique())  # one is `all`
    return regions, directions if several else None


def _matrix(
    table: pa.Table | None, down: str, across: str, value: str, most: int, notices: list[str]
) -> Matrix | None:
    if table is None or not table.num_rows:
        return None
    try:
        found = table.select([down, across, value, "low", "high"]).to_pylist()
    except KeyError as error:
        notices.append(f"evaluation/: a table is not as this release writes it: {error}")
        return None
    rows = tuple(dict.fromkeys(str(row[down]) for row in found))
    columns = tuple(dict.fromkeys(str(row[across]) for row in found))
    units = {}
    if "unit" in table.column_names:
        pairs = zip(table[down].to_pylist(), table["unit"].to_pylist(), strict=True)
        units = {str(name): str(unit) for name, unit in pairs if unit}
    cells = {
        (str(row[down]), str(row[across])): Figure(
            *(_number(row[n]) for n in (value, "low", "high"))
        )
        for row in found
    }
    shown = columns[:most]
    listed = rows[:_MAX_EDITS] if down == "edit" else rows
    return Matrix(
        rows=listed,
        columns=shown,
        cells=tuple(tuple(cells.get((row, column)) for column in shown) for row in listed),
        units=units,
        left_out=len(columns) - len(shown) + len(rows) - len(listed),
    )


def _spread(folder: RunFolder, notices: list[str]) -> Spread | None:
    try:
        found = json.loads(storage.read_bytes(folder.url("evaluation", "spread.json")))
        scopes = found.get("scopes", {})
        if not scopes:
            return None
        lines = {
            "edited images": [
                Figure(float(scope["edited"]), math.nan, math.nan) for scope in scopes.values()
            ],
            "Fréchet distance": [_distance(s["frechet_distance"]) for s in scopes.values()],
            "kernel distance": [_distance(s["kernel_distance"]) for s in scopes.values()],
        }
        distances = Matrix(
            tuple(lines), tuple(scopes), tuple(tuple(line) for line in lines.values()), {}, 0
        )
        return Spread(
            str(found["embedding"]), int(found["dimensions"]), int(found["originals"]), distances
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        notices.append(f"evaluation/spread.json cannot be read: {storage.redact(str(error))}")
        return None


def _distance(found: Mapping[str, float | None]) -> Figure:
    return Figure(*(_number(found[name]) for name in ("value", "low", "high")))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
