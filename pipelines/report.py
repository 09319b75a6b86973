"""The HTML report of a run: one page that opens offline, from commits alone, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import ValidationError

from lib import storage
from lib.problems import ConfigProblem
from lib.row_kinds import EDITS, of_config
from lib.run_folder import Counts, RunConflict, RunFolder
from pipelines.config import RunConfig
from pipelines.contact_sheets import heat_gradient
from pipelines.number_texts import FILTERS
from pipelines.report_directions import read_directions
from pipelines.report_merged import read_merged
from pipelines.report_numbers import RunNumbers, read_numbers
from pipelines.report_plots import MAX_LINES, SCHEMES, change_against_strength, roir_histogram
from pipelines.report_shard import few_examples
from pipelines.report_sheets import MAX_SHEETS, make_sheets

_MAX_GROUPS = 300
_MAX_EXAMPLES = 20
_MAX_QUARANTINED = 100
_MAX_NOTICES = 30


def write_report(folder: str) -> str:
    """Write report/index.html and its pictures into the run folder; returns the page's path or URL.

    Raises:
        ConfigProblem: there is no run in `folder`.
        OSError: the report could not be written.

    """
    run_folder = RunFolder(folder)
    run, notices = _read_run(run_folder)
    config = _config(run)
    numbers = read_numbers(run_folder)
    counts = _counts(run_folder)
    quarantined, unreadable = _quarantined(run_folder)
    if run is None and not numbers.committed and not quarantined:
        raise ConfigProblem(
            f"{storage.redact(folder)}: expected the output folder of a run, found neither a"
            " run.json nor a commit in it; give the folder that `output.folder` names"
        )
    sheets = make_sheets(run_folder, config, numbers)
    directions, direction_files, lost = read_directions(run_folder, numbers.direction_files)
    merged, merged_left_out, unlearned = read_merged(run_folder)
    files = dict(sheets.files) | _plots(numbers)
    notices += unlearned + numbers.notices + unreadable + sheets.notices + lost
    page = _render(
        name="/".join(part for part in storage.redact(folder).split("/")[-2:] if part),
        run=run,
        config_yaml=None if run is None else _yaml(run["config"]),
        model=_model(run),
        counts=counts or Counts(0, numbers.committed, len(quarantined)),
        inputs_known=counts is not None,
        numbers=numbers,
        groups=[
            (key, numbers.counts[key], numbers.medians(key))
            for key in list(numbers.values)[:_MAX_GROUPS]
        ],
        groups_left_out=max(0, len(numbers.values) - _MAX_GROUPS),
        sheets=sheets,
        max_sheets=MAX_SHEETS,
        gradient=heat_gradient(),
        has_plots=bool(numbers.values),
        regions_left_out=max(0, len(numbers.of_region("roir")) - MAX_LINES),
        directions=directions,
        direction_files=direction_files,
        edits_images=_edits_images(run),
        merged=merged,
        merged_left_out=merged_left_out,
        errors=sorted(numbers.errors.items(), key=lambda item: (-item[1], item[0])),
        examples=few_examples(numbers.examples, _MAX_EXAMPLES),
        quarantined=list(quarantined.items())[:_MAX_QUARANTINED],
        notices=notices[:_MAX_NOTICES],
        notices_left_out=max(0, len(notices) - _MAX_NOTICES),
    )
    return _write(run_folder, page, files)


def _read_run(folder: RunFolder) -> tuple[dict[str, Any] | None, list[str]]:
    try:
        return {"config": {}, "versions": {}, "git_commit": None} | folder.read_run(), []
    except FileNotFoundError:
        return None, ["run.json is missing, so the config is not known."]
    except (RunConflict, OSError) as error:
        return None, [str(error)]


def _config(run: Mapping[str, Any] | None) -> RunConfig | None:
    """The run's config, None where it is that of another release."""
    try:
        return None if run is None else RunConfig.model_validate(run["config"])
    except ValidationError:
        return None


def _edits_images(run: Mapping[str, Any] | None) -> bool:
    """Whether the run's pipeline edits images at all."""
    config = None if run is None else run["config"]
    return not isinstance(config, dict) or of_config(config) is EDITS


def _model(run: Mapping[str, Any] | None) -> str | None:
    config = None if run is None else run["config"]
    model = config.get("model") if isinstance(config, dict) else None
    return model.get("checkpoint") if isinstance(model, dict) else None


def _counts(folder: RunFolder) -> Counts | None:
    """Shards by state; None where inputs.json does not say which there are."""
    try:
        counts = folder.counts()
    except (OSError, ValueError):
        return None
    return counts if counts.inputs else None


def _quarantined(folder: RunFolder) -> tuple[dict[str, str], list[str]]:
    """Shard -> reason, of the shards that no late worker committed after all; and what could not be
    read.
    """
    reasons: dict[str, str] = {}
    notices = []
    for shard in sorted(folder.quarantined_names() - folder.committed()):
        reasons[shard] = "its record cannot be read"
        if len(reasons) > _MAX_QUARANTINED:
            continue
        try:
            reasons[shard] = str(
                json.loads(storage.read_bytes(folder.quarantine_url(shard)))["reason"]
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            notices.append(f"quarantine/{shard}.json cannot be read: {storage.redact(str(error))}")
    return reasons, notices


class _Dumper(yaml.SafeDumper):
    """Block style with lists on one line, as a person writes a config."""


_Dumper.add_representer(
    list, lambda dumper, value: dumper.represent_sequence("tag:yaml.org,2002:seq", value, True)
)


def _yaml(config: Any) -> str:
    return str(yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=88))


def _plots(numbers: RunNumbers) -> dict[str, bytes]:
    if not numbers.values:
        return {}
    roir = numbers.of_region("roir")
    found = {region: numbers.in_change_by_strength(region) for region in list(roir)[:MAX_LINES]}
    changes = {region: points for region, points in found.items() if points}
    unit = "shift in units of the model's mean norm of h"
    if any(key.noise >= 0 for key in numbers.values):
        unit = "standard deviation of the noise"
    files = {}
    for scheme in SCHEMES:
        files[f"plots/roir-{scheme}.svg"] = roir_histogram(roir, scheme)
        files[f"plots/strength-{scheme}.svg"] = change_against_strength(changes, scheme, of=unit)
    return files


def _render(**values: Any) -> str:
    environment = Environment(
        loader=PackageLoader("pipelines"),
        autoescape=True,  # keys, messages and reasons come from other people's shards
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template("report.html.j2").render(values)


def _write(folder: RunFolder, page: str, files: Mapping[str, bytes]) -> str:
    """Pictures first, the page last; what an earlier report left and this one lacks is deleted."""
    root = folder.report_url
    for name, data in files.items():
        storage.replace(storage.join(root, name), data)
    index = storage.join(root, "index.html")
    storage.replace(index, page.encode())
    for part in ("plots", "sheets"):
        for name in storage.list_names(storage.join(root, part)):
            if f"{part}/{name}" not in files and name.endswith((".svg", ".webp")):
                storage.delete(storage.join(root, part, name))
    return index
