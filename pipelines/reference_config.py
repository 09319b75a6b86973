"""Of the section `discover`: directions towards a reference image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipelines.config_section import PositiveInt, Section, Timestep


class ReferenceFile(Section):
    """A reference of its own for every sample."""

    file: Annotated[str, Field(pattern=r"^[a-z0-9_.-]+$")]
    """The side file's extension: everything after the first dot, such as `reference.png`."""


class ReferenceImage(Section):
    """One reference for all samples."""

    image: str
    """A path or fsspec URL; by content, not by name, in the fingerprint."""


class ReferenceDiscovery(Section):
    """The direction of each region that makes it look as in a reference image."""

    method: Literal["reference"]
    reference: ReferenceFile | ReferenceImage
    """`{file: EXT}`, a side file of every sample, or `{image: PATH}`, one image for all. Parts must
    lie where they lie in the image, as in aligned faces.
    """
    timesteps: Annotated[tuple[Timestep, ...], Field(min_length=1, max_length=1)] = (368,)
    """Exactly one; the nearest grid timestep is used."""
    basis: PositiveInt = 16
    """Columns of the Krylov basis of every region's wanted change: a product of either kind each.
    """
    rounds: PositiveInt = 3
    """Of fitting by finite edits, each with four or five of them; ends earlier where nothing is
    gained.
    """
    outside: Annotated[float, Field(gt=0.0)] = 1.0
    """What a squared change outside the region counts against one inside: more is more local."""
    products: Literal["linearised", "forward", "difference", "double_backward"] = "linearised"
    """As of jacobian."""
    chunk: PositiveInt = 8
    """Edits, or Jacobian-vector products, in one call: bounds memory."""
