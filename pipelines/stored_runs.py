"""Latents that one run stores and another reads: what is stored, and whether it is what is needed.

Nothing here imports torch: the driver and the plan ask before work starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from lib.files import storage
from lib.ledger.run_folder import RunConflict, RunFolder
from lib.ledger.run_record import differences
from lib.models.checkpoint import Checkpoint
from lib.problems import ConfigProblem
from lib.sampling.eta import EtaSchedule
from lib.sampling.evaluations import states
from lib.sampling.grid import edited_nodes, grid_timesteps, nearest_node
from pipelines.config import RunConfig
from pipelines.discovery_work import discovery_work
from pipelines.inversion_config import Invert
from pipelines.model_source import open_model
from pipelines.reference_config import ReferenceDiscovery

NOTHING: Mapping[str, Any] = {"latents": "none"}
"""What a run stores beside its results that stores no latents."""


@dataclass(frozen=True, slots=True)
class LatentNeeds:
    """What the stages behind the inversion ask of it."""

    last: int
    """The node at which it stops."""
    keep: frozenset[int]
    """Nodes at which they ask for x_t."""
    decoded: bool
    """Whether decoding begins at `last`."""


def latent_needs(config: RunConfig, timesteps: tuple[int, ...]) -> LatentNeeds:
    """On a grid of `timesteps`; raises as `discovery_work`."""
    if config.pipeline == "store_latents":
        return LatentNeeds(edited_nodes(timesteps, config.edit.window)[0], frozenset(), True)
    nodes = frozenset(discovery_work(config, timesteps).nodes)
    if isinstance(config.discover, ReferenceDiscovery):  # which edits to find its directions
        return LatentNeeds(edited_nodes(timesteps, config.edit.window)[0], nodes, True)
    if config.pipeline == "direction_library":
        return LatentNeeds(max(nodes), nodes, config.invert.report)
    return LatentNeeds(edited_nodes(timesteps, config.edit.window)[0], nodes, True)


def further_nodes(invert: Invert, timesteps: tuple[int, ...]) -> frozenset[int]:
    """Nodes whose x_t is stored though this run does not need it: `invert.keep`."""
    return frozenset(nearest_node(timesteps, t) for t in invert.keep)


def what_is_stored(config: RunConfig) -> dict[str, Any]:
    """For run.json: what the latents of this run serve for; raises as `latent_needs`."""
    if config.output.latents == "none":
        return dict(NOTHING)
    timesteps = config_timesteps(config)
    needs = latent_needs(config, timesteps)
    nodes = needs.keep | further_nodes(config.invert, timesteps)
    return {
        "latents": config.output.latents,
        "timestep": timesteps[needs.last - 1],
        "x": [timesteps[node - 1] for node in sorted(nodes, reverse=True)],
        "states": states(config.invert.method),
    }


def config_timesteps(config: RunConfig) -> tuple[int, ...]:
    """The grid of a config; raises ModelProblem or ConfigProblem."""
    checkpoint = open_model(config.model)
    return grid_timesteps(
        config.grid.num_steps, config.grid.spacing, checkpoint.num_train_timesteps
    )


def latent_bytes(config: RunConfig, checkpoint: Checkpoint, timesteps: tuple[int, ...]) -> int:
    """Of one image in the latents file; 0 where none is stored."""
    if config.output.latents == "none":
        return 0
    invert, needs = config.invert, latent_needs(config, timesteps)
    value_bytes = 2 if config.output.latents == "float16" else 4
    count = states(invert.method)
    exact = 2 if count > 1 and value_bytes == 4 else 1  # two-state samplers carry float64
    x = needs.keep | further_nodes(invert, timesteps)
    tensors = exact * count + len(x - {needs.last} if count == 1 else x)
    if invert.method == "ddpm":
        eta = EtaSchedule(invert.eta_points)
        tensors += sum(eta.at(t) > 0 for t in timesteps[: needs.last])
    return tensors * prod(checkpoint.latent_shape) * value_bytes


def latents_dtype(config: RunConfig) -> str:
    """In which latents are rounded before anything is made from them: none, float32 or float16,
    as they are stored by this run, or by the one that it reads.

    Raises:
        ConfigProblem: there is no such run, or it stores none.
    """
    if config.invert.latents is None:
        return config.output.latents
    return str(_stores(config.invert.latents, _read_run(config.invert.latents))["latents"])


def check_stored_latents(config: RunConfig, fields: Mapping[str, Any]) -> None:
    """Whether the run at `invert.latents` holds what this one needs; `fields` are those of the
    fingerprint.

    Raises:
        ConfigProblem: it does not; the fields that differ are named with both values.
    """
    path = config.invert.latents
    if path is None:
        return
    run = _read_run(path)
    stores = _stores(path, run)
    lines = list(differences(_inversion_fields(run["fields"]), _inversion_fields(fields)))
    where = f"invert.latents: {storage.redact(path)}"
    if lines:
        text = "\n".join(f"  {line}" for line in lines)
        raise ConfigProblem(
            f"{where} was inverted with other settings; expected the same, but these fields differ"
            f" (there / now):\n{text}"
        )
    timesteps = config_timesteps(config)
    needs = latent_needs(config, timesteps)
    top = timesteps[needs.last - 1]
    alone = stores["states"] == 1
    x = {*stores["x"], *([stores["timestep"]] if alone else [])}
    below = alone and top in x and top < stores["timestep"]
    if needs.decoded and top != stores["timestep"] and not below:
        raise ConfigProblem(
            f"{where}: decoding begins at timestep {top}, expected latents of it, and that run"
            f" stored those of {stores['timestep']}"
            + (f" and x_t at {sorted(x, reverse=True)}" if alone else "")
            + "; change edit.window, or store latents for this one"
        )
    lacking = sorted({timesteps[node - 1] for node in needs.keep} - x, reverse=True)
    if lacking:
        raise ConfigProblem(
            f"{where}: discovery needs x_t at {lacking}, and that run stored it at"
            f" {sorted(x, reverse=True)}; store latents with invert.keep: {lacking}"
        )


def _inversion_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Those on which latents depend."""
    model = {key: value for key, value in fields["model"].items() if key != "h_layer"}
    invert = {key: value for key, value in fields["invert"].items() if key != "report"}
    return {"model": model, "input": fields["input"], "grid": fields["grid"], "invert": invert}


def _read_run(path: str) -> dict[str, Any]:
    try:
        return RunFolder(path).read_run()
    except FileNotFoundError as error:
        raise ConfigProblem(
            f"invert.latents: expected the output folder of a run, found no run.json in"
            f" {storage.redact(path)}"
        ) from error
    except RunConflict as error:
        raise ConfigProblem(f"invert.latents: {error}") from error


def _stores(path: str, run: Mapping[str, Any]) -> Mapping[str, Any]:
    stores: Mapping[str, Any] = run["stores"]
    if stores.get("latents", "none") == "none":
        raise ConfigProblem(
            f"invert.latents: the run in {storage.redact(path)} stores no latents; expected one"
            " with output.latents: float32 or float16"
        )
    return stores
