"""From `discover.method: reference` to its loaded stage."""

from __future__ import annotations

from lib.editing.edit_shifts import EditShifts
from lib.files.image_files import ImageError
from lib.problems import ConfigProblem
from lib.reference.images import ReferenceOf, ReferenceReader
from lib.reference.matching import Approach
from pipelines.config import RunConfig
from pipelines.engine import Engine
from pipelines.reference_config import ReferenceDiscovery, ReferenceFile
from pipelines.reference_files import reference_bytes
from pipelines.samplers import build_sampler
from tasks.reference import ReferenceDiscoverer


def build_reference_discoverer(
    config: RunConfig, discover: ReferenceDiscovery, engine: Engine, node: int
) -> ReferenceDiscoverer:
    """The stage; its edits are made as the run makes its own.

    Raises:
        ConfigProblem: the one reference image is not there or cannot be used.
    """
    edit = config.edit
    shifts = EditShifts(
        engine.grid,
        edit.window,
        edit.injection,
        edit.reach,
        engine.h_norms,
        engine.denoiser.h_shape,
        engine.denoiser.latent_shape,
    )
    return ReferenceDiscoverer(
        engine.denoiser,
        node=node,
        shifts=shifts,
        sampler=build_sampler(config),
        reference_of=_reference_of(config, discover, engine),
        approach=Approach(
            basis=discover.basis,
            rounds=discover.rounds,
            outside=discover.outside,
            products=discover.products,
            chunk=discover.chunk,
        ),
        parameters={
            "basis": discover.basis,
            "rounds": discover.rounds,
            "outside": discover.outside,
            "window": list(edit.window),
            "injection": edit.injection,
        },
        model=engine.model,
        h_layer=config.model.h_layer,
        vector_dtype=config.output.vector_dtype,
    )


def _reference_of(config: RunConfig, discover: ReferenceDiscovery, engine: Engine) -> ReferenceOf:
    reader = ReferenceReader(
        engine.denoiser.image_size,
        config.input.fit,
        config.input.min_side,
        config.input.max_pixels,
    )
    if isinstance(discover.reference, ReferenceFile):
        return reader.of_side_files(discover.reference.file)
    try:
        return reader.of_one(reference_bytes(discover.reference.image))
    except ImageError as error:
        raise ConfigProblem(f"discover.reference.image: {error}") from error
