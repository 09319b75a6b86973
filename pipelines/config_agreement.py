"""What the sections of a run's config must agree on: each check is a ValueError with one sentence,
which names the key to change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lib.region_names import WHOLE
from pipelines.discovery_config import LibraryDiscovery, NoDiscovery
from pipelines.edit_plan_config import Combination, EditPlan
from pipelines.segment_agreement import check_sources
from pipelines.study_config import DatasetDiscovery

if TYPE_CHECKING:
    from pipelines.config import RunConfig


def check_agreement(config: RunConfig) -> None:
    """Raises ValueError where two sections contradict each other."""
    for check in (
        _latents_go_one_way,
        _rectified_alone,
        _method_fits_the_pipeline,
        _boosted_by_ddim,
        _rule_fits_the_inversion,
        _regions_known,
    ):
        check(config)


def _latents_go_one_way(config: RunConfig) -> None:
    """Latents are stored or read, by a run that inverts."""
    stores = config.output.latents != "none"
    if config.pipeline == "store_latents" and not stores:
        raise ValueError("output.latents: expected float32 or float16 with store_latents")
    if config.invert.latents is not None and stores:
        raise ValueError(
            "output.latents: expected none with invert.latents, which are stored already"
        )
    used = stores or config.invert.latents is not None
    if used and config.pipeline == "region_model":
        raise ValueError("output.latents: region_model inverts nothing; expected no latents")
    if used and config.pipeline == "edit_dataset" and config.edit.method == "sdedit":
        raise ValueError("edit.method: sdedit inverts nothing; expected no latents with it")
    if config.invert.keep and not stores:
        raise ValueError(
            "invert.keep: is for stored latents; expected output.latents: float32 or float16"
        )


def _rectified_alone(config: RunConfig) -> None:
    """A rectifier belongs to runs that edit, and latents are of the frozen network."""
    if config.model.rectifier is None:
        return
    if config.pipeline != "edit_dataset":
        raise ValueError(
            "model.rectifier: expected `pipeline: edit_dataset` with it; directions are found in"
            " the frozen network"
        )
    if config.output.latents != "none" or config.invert.latents is not None:
        raise ValueError(
            "model.rectifier: latents are stored of the frozen network; expected output.latents:"
            " none and no invert.latents with it"
        )


def _method_fits_the_pipeline(config: RunConfig) -> None:
    """The discover and edit methods are of a kind that the pipeline runs."""
    method = config.discover.method
    if config.pipeline in ("store_latents", "region_model"):
        return
    if isinstance(config.discover, DatasetDiscovery) and config.pipeline != "direction_library":
        raise ValueError(
            f"discover.method: {method} learns from all images of a run; expected it with"
            " `pipeline: direction_library`; apply what it finds in a run of"
            " `pipeline: edit_dataset` with `method: library`"
        )
    if config.invert.report and config.pipeline == "edit_dataset":
        raise ValueError(
            "invert.report: a run that edits reports every reconstruction in any case; expected"
            " it with `pipeline: direction_library` or `store_latents`"
        )
    if (
        isinstance(config.discover, DatasetDiscovery)
        and config.discover.capture == "inversion"
        and config.invert.latents is not None
    ):
        raise ValueError(
            "discover.capture: inversion takes h from inverting, and with invert.latents"
            " nothing is inverted; expected exact"
        )
    if config.learned is not None and config.pipeline != "edit_dataset":
        raise ValueError(
            "learned: editors are applied, not found; expected the section with"
            " `pipeline: edit_dataset`"
        )
    if isinstance(config.discover, LibraryDiscovery) and config.pipeline != "edit_dataset":
        raise ValueError(
            "discover.method: library applies directions and finds none; expected it with"
            " `pipeline: edit_dataset`"
        )
    if isinstance(config.discover, NoDiscovery) and config.pipeline != "edit_dataset":
        raise ValueError(
            "discover.method: none finds nothing to store; expected it with"
            " `pipeline: edit_dataset` and `edit.method: sdedit`"
        )
    if config.pipeline == "edit_dataset":
        alone = isinstance(config.discover, NoDiscovery) and config.learned is None
        if alone and config.edit.method != "sdedit":
            raise ValueError(
                "discover.method: none leaves nothing to shift along; expected a method, learned"
                " editors, or `edit.method: sdedit`"
            )
        if config.edit.method == "sdedit" and config.learned is not None:
            raise ValueError("edit.method: sdedit uses no editors; expected no section learned")
        if config.edit.method == "sdedit" and not isinstance(config.discover, NoDiscovery):
            raise ValueError(
                f"edit.method: sdedit uses no directions; expected `discover.method: none` with"
                f" it, got {method}"
            )


def _boosted_by_ddim(config: RunConfig) -> None:
    """Only DDIM has steps to which noise may be added."""
    rule = config.edit.window_rule
    boosted = config.edit.boost_below > 0 or (rule is not None and rule.boost)
    if boosted and config.invert.method != "ddim":
        raise ValueError(
            "edit.boost_below: expected invert.method ddim with it, got"
            f" {config.invert.method}, whose exact way back it would leave"
        )


def _rule_fits_the_inversion(config: RunConfig) -> None:
    """A window that a rule finds is known in time."""
    rule = config.edit.window_rule
    if rule is None:
        return
    if config.output.latents != "none" or config.invert.latents is not None:
        raise ValueError(
            "edit.window_rule: expected none in a run that stores latents or reads them, which"
            " must know the window before; take what another run found, in its window.json"
        )
    if rule.boost and config.edit.boost_below:
        raise ValueError(
            "edit.window_rule: boost sets edit.boost_below; expected one of them, got"
            f" {config.edit.boost_below} too"
        )


def _regions_known(config: RunConfig) -> None:
    """Every region that is named is defined, and there are as many as the method needs."""
    if WHOLE in config.segment.regions:
        raise ValueError(
            f"segment.regions: {WHOLE!r} is the name of the whole image; expected another name"
        )
    check_sources(config.segment)
    method = config.discover.method
    if config.pipeline in ("store_latents", "region_model"):
        return
    without = isinstance(config.discover, DatasetDiscovery | NoDiscovery)
    if not config.segment.regions and not without:
        raise ValueError(f"segment.regions: expected at least one region for method {method}")
    if method in ("jive", "ajive") and len(config.segment.regions) < 2:
        raise ValueError(f"segment.regions: expected at least two regions, which {method} compares")
    if isinstance(config.discover, LibraryDiscovery):
        unknown = sorted(set(config.discover.regions) - set(config.segment.regions) - {WHOLE})
        if unknown:
            raise ValueError(
                f"discover.regions names {unknown}, which segment.regions does not define"
            )
    unknown = sorted(_planned_regions(config.edit.plan) - set(config.segment.regions) - {WHOLE})
    if unknown and config.edit.method == "shift" and config.pipeline == "edit_dataset":
        raise ValueError(
            f"edit.plan: names the regions {unknown}, which segment.regions does not define; it"
            f" defines {sorted(config.segment.regions)}"
        )


def _planned_regions(plan: EditPlan) -> set[str]:
    parts = [
        part
        for entry in plan.entries
        for part in (entry.combine if isinstance(entry, Combination) else (entry,))
    ]
    return {region for part in parts for region in part.regions}
