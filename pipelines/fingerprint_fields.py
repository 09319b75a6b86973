"""What of a config decides the pixels and the rows: the fields that the fingerprint covers.

Left out is where things lie and how the work is done; the model and a library enter by what is in
them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from lib.directions.library_files import library_files
from lib.editors.editor_record import RECTIFIER
from lib.editors.library_editors import editor_sha256
from lib.files import schemas, storage
from lib.fingerprint import fingerprint
from lib.models.checkpoint import weights_sha256
from lib.models.transformers_folder import classifier_sha256, text_image_sha256
from pipelines.automatic_regions import name_by_clusters
from pipelines.config import RunConfig
from pipelines.discovery_config import LibraryDiscovery, PullbackDiscovery, TextDiscovery
from pipelines.evaluation_models import fields_by_content
from pipelines.learned_editors import chosen_editors, editors_sha256
from pipelines.mask_models import name_by_content
from pipelines.model_source import open_model
from pipelines.reference_config import ReferenceDiscovery, ReferenceImage
from pipelines.reference_files import reference_sha256
from pipelines.side_files import side_files
from pipelines.stored_runs import latents_dtype
from pipelines.study_config import DatasetDiscovery, SupervisedDiscovery


def fingerprint_fields(config: RunConfig) -> dict[str, Any]:
    """Plain JSON fields for `lib.fingerprint.fingerprint`. Reads the weights once, without torch.

    Raises:
        ModelProblem: the checkpoint's files are not there.
        ConfigProblem: the files of a library, or of the run whose latents are read, are not there.

    """
    fields: dict[str, Any] = config.model_dump(
        mode="json",
        exclude={
            "execution": True,
            "evaluate": True,
            "input": {"shards", "max_shard_bytes"},
            "output": {"folder", "latents"},
            "invert": {"latents", "keep"},
            "model": {"checkpoint", "revision"},
        },
    )
    fields["schema_version"] = schemas.SCHEMA_VERSION
    _name_editors(fields, config)
    fields["model"]["weights_sha256"] = weights_sha256(open_model(config.model))
    if latents_dtype(config) == "float16":
        fields["latents"] = "float16"
    if config.pipeline == "region_model":
        return _of_regions(fields, config)
    del fields["region_model"]
    if config.pipeline == "store_latents":
        return _of_inversion(fields, config)
    if config.pipeline == "direction_library":
        _leave_out_edits(fields, config)
    else:
        fields["evaluate"] = fields_by_content(config.evaluate)
        if config.edit.method == "sdedit":
            _leave_out_shifts(fields, config)
        else:
            del fields["edit"]["sdedit"]
    _name_by_content(fields["discover"], config)
    if "segment" in fields:
        name_by_content(fields["segment"], config.segment)
        name_by_clusters(fields["segment"], config)
    return fields


def pixel_fingerprint(fields: Mapping[str, Any]) -> str:
    """Of the fields without the section `evaluate`: whence the seeds of samples come, so that a run
    that measures more, or filters otherwise, makes the same pixels.
    """
    return fingerprint({name: value for name, value in fields.items() if name != "evaluate"})


def _of_inversion(fields: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Latents depend on neither regions, directions nor edits, but mask files are no images. Where
    the inversion stops stands beside the fingerprint (`pipelines.stored_runs.what_is_stored`).
    """
    for name in ("segment", "discover", "edit", "output"):
        del fields[name]
    del fields["model"]["h_layer"]
    fields["mask_files"] = sorted(side_files(config))
    return fields


def _of_regions(fields: dict[str, Any], config: RunConfig) -> dict[str, Any]:
    """Regions are learned from images that are neither inverted nor edited."""
    for name in ("grid", "invert", "segment", "discover", "edit", "output"):
        del fields[name]
    del fields["model"]["h_layer"]
    fields["invert"] = {"batch_size": config.invert.batch_size}
    fields["mask_files"] = sorted(side_files(config))
    return fields


def _leave_out_shifts(fields: dict[str, Any], config: RunConfig) -> None:
    """SDEdit neither inverts nor shifts, and knows no region; but mask files are no images."""
    for name in ("segment", "invert"):
        del fields[name]
    del fields["model"]["h_layer"]
    fields["mask_files"] = sorted(side_files(config))
    fields["edit"] = {key: fields["edit"][key] for key in ("method", "sdedit", "batch_size")}


def _leave_out_edits(fields: dict[str, Any], config: RunConfig) -> None:
    """A library does not depend on how edits would be made, except on the window where that says
    which timesteps are studied.
    """
    fields["output"] = {"vector_dtype": config.output.vector_dtype}
    del fields["edit"]
    if isinstance(config.discover, ReferenceDiscovery):  # it edits to find them
        kept = {"window", "window_rule", "injection", "reach", "boost_below"}
        fields["edit"] = config.edit.model_dump(mode="json", include=kept)
    if isinstance(config.discover, DatasetDiscovery):
        del fields["segment"]
        if not config.discover.timesteps:
            fields["edit"] = {"window": list(config.edit.window)}
            if config.edit.window_rule is not None:
                fields["edit"]["window_rule"] = config.edit.window_rule.model_dump(mode="json")


def _name_by_content(fields: dict[str, Any], config: RunConfig) -> None:
    """Put hashes in the place of paths."""
    discover = config.discover
    if isinstance(discover, LibraryDiscovery):
        del fields["path"]
        optional = bool(chosen_editors(config))
        fields["library_sha256"] = _library_sha256(
            discover.path, "discover.path", optional=optional
        )
    if isinstance(discover, PullbackDiscovery) and discover.transport is not None:
        del fields["transport"]
        fields["transport_sha256"] = _library_sha256(discover.transport, "discover.transport")
    if isinstance(discover, TextDiscovery):
        del fields["model"]
        fields["model_sha256"] = text_image_sha256(discover.model)
    reference = discover.reference if isinstance(discover, ReferenceDiscovery) else None
    if isinstance(reference, ReferenceImage):
        fields["reference"] = {"sha256": reference_sha256(reference.image)}
    if isinstance(discover, SupervisedDiscovery) and discover.classifier is not None:
        del fields["classifier"]
        fields["classifier_sha256"] = classifier_sha256(discover.classifier)


def _name_editors(fields: dict[str, Any], config: RunConfig) -> None:
    """Learned editors by content; absent where there are none."""
    del fields["learned"], fields["model"]["rectifier"]
    if config.pipeline != "edit_dataset":
        return
    chosen = chosen_editors(config)
    if chosen:
        fields["learned"] = [
            {"id": editor.record.id, "label": editor.record.label, "sha256": sha256}
            for editor, sha256 in zip(chosen, editors_sha256(chosen), strict=True)
        ]
    if config.model.rectifier is not None:
        option = "model.rectifier"
        fields["rectifier"] = editor_sha256(config.model.rectifier, RECTIFIER, option)


def _library_sha256(path: str, option: str, *, optional: bool = False) -> str:
    """Of all files in the order they are read: that order decides which directions are taken."""
    digest = hashlib.sha256()
    for url in library_files(path, option, optional=optional):
        digest.update(hashlib.sha256(storage.read_bytes(url)).digest())
    return digest.hexdigest()
