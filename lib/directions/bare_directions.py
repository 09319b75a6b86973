"""Directions of other programs, saved as tensors and nothing else: what the tensor does not say is
given by hand.

Shape suffixes: N directions, S steps, C channels, Y, X of the space, D = C Y X.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from lib.direction import WHOLE, Direction, content_id, stored
from lib.directions.direction_files import EXPORT_HEADER, is_export
from lib.files import storage
from lib.files.tensor_files import PICKLED, SAFETENSORS, read_pickled, read_safetensors
from lib.problems import ConfigProblem

AS_PUBLISHED = "as_published"
"""Sign rule: whatever the file says."""

_CUSTOMARY = {"h": "u", "x": "vT"}
"""What Diffusion-Pullback (Park et al. 2023) and LOCO Edit (Chen et al. 2024) call their bases."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a published direction belongs; nothing of it can be read from its file."""

    model: str
    """SHA-256 of the weights."""
    space: str
    h_layer: str
    shape: tuple[int, int, int]
    """(C, Y, X) of h, or of the latent for space x."""
    h_norm: float
    """The model's mean norm of h at the first timestep; for x the norm of unit noise."""
    region: str = WHOLE
    label: str | None = None


def import_bare(
    url: str, placement: Placement, timesteps: Sequence[int], *, tensor: str = ""
) -> tuple[Direction, ...]:
    """The directions of a bare tensor in a .pt, .pth or .safetensors file, made unit, in order.

    Read are (C, Y, X); (N, C, Y, X) with one timestep; (S, C, Y, X) or (N, S, C, Y, X) with S
    timesteps; rows (N, D) or (D,); and columns (D, N), as Pullback saves `u`. `tensor` names the
    one to take where the file holds several; without it the only one, else `u` for h and `vT`
    for x. Their rank is their place in the file and their singular value the norm they had.

    Raises:
        ConfigProblem: no or a damaged file, pickled code, no such tensor, another shape, NaN, a
            zero vector, or a placement that makes no sense.
    """
    _check_placement(placement, timesteps)
    name, value = _chosen(url, tensor, placement.space)
    where = f"{storage.redact(url)}: tensor {name!r}" if name else storage.redact(url)
    vector_NSCYX = _split(value, placement.shape, len(timesteps), name, where)
    parameters = {"file": storage.basename(url), "tensor": name}
    return tuple(
        published(
            vector_SCYX,
            placement,
            timesteps,
            method="imported",
            parameters=parameters,
            rank=rank,
            where=where,
        )
        for rank, vector_SCYX in enumerate(vector_NSCYX)
    )


def published(
    vector_SCYX: Tensor,
    placement: Placement,
    timesteps: Sequence[int],
    *,
    method: str,
    parameters: dict[str, Any],
    where: str,
    rank: int = 0,
    window: tuple[int, int] | None = None,
    support: int = 1,
    spread: float | None = None,
) -> Direction:
    """A direction that was found elsewhere; `where` begins the error messages.

    Raises:
        ConfigProblem: a step of the vector is zero or not finite.
    """
    float_SCYX = vector_SCYX.detach().cpu().float()
    norm_S = float_SCYX.flatten(1).double().norm(dim=1)
    if not bool(torch.isfinite(norm_S).all()):
        raise ConfigProblem(f"{where}: expected finite values, got NaN or infinity")
    if not bool((norm_S > 0).all()):
        raise ConfigProblem(f"{where}: direction {rank} is zero at a step, so it has no direction")
    # In float64, since a step may be so short that float32 cannot square it.
    unit_SCYX = stored((float_SCYX.double() / norm_S[:, None, None, None]).float(), "float32")
    steps = tuple(int(t) for t in timesteps)
    return Direction(
        vector_SCYX=unit_SCYX,
        id=content_id(unit_SCYX, placement.space, placement.h_layer, placement.model, steps),
        space=placement.space,
        h_layer=placement.h_layer,
        model=placement.model,
        timesteps=steps,
        method=method,
        parameters={**parameters, "norms": norm_S.tolist()},
        region=placement.region,
        mask_sha256="",
        shard=None,
        index=None,
        key=None,
        rank=rank,
        singular_value=float(norm_S[0]),
        gap=None,
        residual=None,
        angle=None,
        converged=True,
        jvp_count=0,
        vjp_count=0,
        sign_rule=AS_PUBLISHED,
        h_norm=placement.h_norm,
        label=placement.label,
        window=window,
        support=support,
        spread=spread,
    )


def _check_placement(placement: Placement, timesteps: Sequence[int]) -> None:
    if placement.space not in _CUSTOMARY:
        raise ConfigProblem(f"expected space h or x for the import, got {placement.space!r}")
    if len(placement.shape) != 3 or min(placement.shape) < 1:
        raise ConfigProblem(f"expected a shape (C, Y, X) for the import, got {placement.shape}")
    if not isfinite(placement.h_norm) or placement.h_norm <= 0:
        raise ConfigProblem(
            f"expected a positive norm of {placement.space}, got {placement.h_norm}"
        )
    if not timesteps or len(set(timesteps)) < len(timesteps) or min(timesteps) < 0:
        raise ConfigProblem(
            f"expected one timestep, or one a step without repetition, got {list(timesteps)}"
        )


def _chosen(url: str, wanted: str, space: str) -> tuple[str, Tensor]:
    found = _tensors(url)
    names = [name for name in found if name]
    if wanted:
        if wanted not in found:
            raise ConfigProblem(
                f"{storage.redact(url)}: expected a tensor {wanted!r}, found {names[:12]}"
            )
        return wanted, found[wanted]
    if len(found) == 1:
        return next(iter(found.items()))
    if _CUSTOMARY[space] in found:
        return _CUSTOMARY[space], found[_CUSTOMARY[space]]
    raise ConfigProblem(
        f"{storage.redact(url)}: expected one tensor, found {len(names)}"
        + (f" ({', '.join(names[:12])}); name the one to import" if names else "")
    )


def _tensors(url: str) -> dict[str, Tensor]:
    """By name; one without a name has the name ""."""
    if url.endswith(SAFETENSORS):
        tensors, header = read_safetensors(url)
        if EXPORT_HEADER in header:
            raise _complete(url)
        return tensors
    if not url.endswith(PICKLED):
        raise ConfigProblem(
            f"{storage.redact(url)}: expected a {SAFETENSORS} or {' or '.join(PICKLED)} file"
        )
    content = read_pickled(url)
    if is_export(content):
        raise _complete(url)
    if isinstance(content, dict):
        return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if isinstance(content, list | tuple) and content:
        same = all(isinstance(v, Tensor) and v.shape == content[0].shape for v in content)
        return {"": torch.stack(list(content))} if same else {}
    return {"": content} if isinstance(content, Tensor) else {}


def _split(value: Tensor, shape: tuple[int, int, int], steps: int, name: str, where: str) -> Tensor:
    """(N, S, C, Y, X), or a ConfigProblem."""
    channels, rows, columns = shape
    size = channels * rows * columns
    if not value.is_floating_point():
        raise ConfigProblem(f"{where}: expected floating-point values, got {value.dtype}")
    if value.ndim == 2 and size in value.shape:
        # A square basis is read as what the two programs make of this name.
        by_columns = value.shape[1] != size or (value.shape[0] == size and name == "u")
        value = value.T if by_columns else value
    fits = tuple(value.shape[-3:]) == shape or (value.ndim in (1, 2) and value.shape[-1] == size)
    count = value.numel() // size
    if not fits or not count or count % steps:
        raise ConfigProblem(
            f"{where}: expected (C, Y, X) = {shape} with {steps} steps a direction, or rows or"
            f" columns of {size}, got {tuple(value.shape)}"
        )
    return value.reshape(-1, steps, channels, rows, columns)


def _complete(url: str) -> ConfigProblem:
    return ConfigProblem(
        f"{storage.redact(url)}: these directions carry their metadata; import them without space,"
        " shape and timesteps"
    )
