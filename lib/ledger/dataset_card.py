"""The dataset card (README.md of a run): what the folder holds, how it was made, how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from lib.files import row_kinds
from lib.ledger.run_index import RunIndex

_TEMPLATES = {"edits": "dataset-card.md.j2", "samples": "library-card.md.j2"}


def render_card(run: Mapping[str, Any], index: RunIndex) -> str:
    """Markdown with a YAML head, as dataset hubs read it; no date, so the same run makes the same
    card.

    `run` is what run.json holds. Its config may be of any shape: what is not there is not
    mentioned.
    """
    environment = Environment(
        loader=PackageLoader("lib"),
        autoescape=False,  # Markdown; every foreign text goes through `code`
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["code"] = _code
    config = run["config"]
    output = config.get("output", {})
    extension = {"jpeg": "jpg"}.get(output.get("format", "png"), output.get("format", "png"))
    kind = row_kinds.of_config(config)
    return environment.get_template(_TEMPLATES[kind.name]).render(
        index=index,
        totals=index["totals"],
        has_errors=any(file["name"].startswith("errors-") for file in index["manifest"]),
        own_directions=any(entry["directions"] for entry in index["shards"]),
        merged=bool(index["merged"]),
        has_statistics=any(entry["statistics"] for entry in index["shards"]),
        latents_only=config.get("pipeline") == "store_latents",
        regions_only=config.get("pipeline") == "region_model",
        has_latents=any(entry["latents"] for entry in index["shards"]),
        columns=[(field.name, _type_name(field.type)) for field in kind.schema],
        meanings=kind.meanings,
        image_field=f"edited.{extension}" if output.get("layout") == "pairs" else extension,
        pairs=output.get("layout") == "pairs",
        extension=extension,
        model=config.get("model", {}).get("checkpoint"),
        settings=_settings(config),
        sdedit=_is_sdedit(config),
        inversion=_inversion(config),
        versions=run["versions"],
        git_commit=run["git_commit"],
    )


def _settings(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The leaves of what shapes pixels and rows, by dotted path."""
    sections = ["model", "grid", "invert", "segment", "discover", "edit", "evaluate"]
    if config.get("pipeline") == "region_model":
        sections = ["model", "region_model"]
    leaves = [leaf for name in sections for leaf in _leaves(config.get(name), name)]
    return [(path, str(value)) for path, value in leaves if _counts(path, config)]


def _counts(path: str, config: Mapping[str, Any]) -> bool:
    """Whether a setting shaped the pixels of a run that edits as its config says."""
    if not _is_sdedit(config):
        return not path.startswith("edit.sdedit.")
    kept = ("model.", "grid.", "edit.method", "edit.sdedit.", "edit.batch_size", "evaluate.")
    return path.startswith(kept)


def _inversion(config: Mapping[str, Any]) -> str:
    """The way of inversion by its usual name."""
    invert = config.get("invert")
    method = invert.get("method") if isinstance(invert, Mapping) else None
    return {"edict": "EDICT", "bdia": "BDIA", "ddpm": "DDPM with stored noise"}.get(
        str(method), "DDIM"
    )


def _is_sdedit(config: Mapping[str, Any]) -> bool:
    """Also of a config of another shape, which is not."""
    edit = config.get("edit")
    return isinstance(edit, Mapping) and edit.get("method") == "sdedit"


def _leaves(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [leaf for key in value for leaf in _leaves(value[key], f"{path}.{key}")]
    return [] if value is None else [(path, value)]


def _type_name(kind: pa.DataType) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _code(text: object) -> str:
    """`text` as inline code that cannot leave its table cell."""
    plain = " ".join(str(text).split()).replace("`", "'").replace("|", "\\|")
    return f"`{plain}`"
