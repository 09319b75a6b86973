"""The Arrow schemas of everything a run leaves: the files are the public API.

Every file carries `deltah_schema` (the version below) in its schema metadata. Vectors are Arrow
`fixed_shape_tensor`, which every reader sees at least as a fixed-size list.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from lib.metrics.columns import EDIT, RECONSTRUCTION

SCHEMA_VERSION = 5
"""Raised whenever a column changes its name, type or meaning; part of the fingerprint."""

_METADATA = {"deltah_schema": str(SCHEMA_VERSION)}


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_GEOMETRY_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("source_width", pa.int32(), "of the input image after EXIF rotation, pixels"),
    ("source_height", pa.int32(), "of the input image after EXIF rotation, pixels"),
    ("crop_left", pa.int32(), "the part of the input image that was used, pixels"),
    ("crop_top", pa.int32(), "the part of the input image that was used, pixels"),
    ("crop_width", pa.int32(), "the part of the input image that was used, pixels"),
    ("crop_height", pa.int32(), "the part of the input image that was used, pixels"),
)

_EDIT_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("shard", pa.string(), "name of the input shard"),
    ("index", pa.int32(), "position of the sample in its shard, from 0"),
    ("key", pa.string(), "the sample's label in the input shard"),
    ("edit", pa.int32(), "position of the edit within the sample, from 0"),
    ("image", pa.string(), "tar under images/"),
    ("member", pa.string(), "name of the edited image inside that tar"),
    ("sha256", pa.string(), "of the edited image's encoded bytes"),
    (
        "region",
        pa.string(),
        "name of the region the direction belongs to; `a+b`: of several, in their order",
    ),
    ("mask_sha256", pa.string(), "of the region's mask"),
    ("mask_area", pa.float32(), "fraction of the image that the mask covers"),
    ("direction", pa.string(), "id in directions/ or in the library; null: sdedit"),
    (
        "rank",
        pa.int32(),
        "0 is the direction with the largest singular value; -1: a learned editor; null: sdedit",
    ),
    (
        "strength",
        pa.float32(),
        "shift in units of the model's mean norm of h (times the direction's unit_strength); of"
        " sdedit the noise, sqrt(1 - alpha_bar)",
    ),
    (
        "added_directions",
        pa.list_(pa.string()),
        "ids of what is combined with it in this edit; empty: nothing",
    ),
    ("added_regions", pa.list_(pa.string()), "their regions, in the same order"),
    ("added_ranks", pa.list_(pa.int32()), "their ranks"),
    ("added_strengths", pa.list_(pa.float32()), "their strengths"),
    ("noise", pa.int32(), "of sdedit: which of the image's noises, from 0; null: no sdedit"),
    (
        "injection",
        pa.string(),
        "asymmetric (only the predicted x_0 sees the shift), symmetric, or sdedit",
    ),
    ("t_high", pa.int32(), "first (noisiest) edited timestep"),
    ("t_low", pa.int32(), "last edited timestep"),
    *((name, pa.float32(), meaning) for name, meaning in {**EDIT, **RECONSTRUCTION}.items()),
    (
        "filtered",
        pa.string(),
        "the first rule of evaluate.filters that the edit breaks; null: it passes",
    ),
    ("network_evaluations", pa.float32(), "inversion, decoding and evaluation of the whole sample"),
    *_GEOMETRY_COLUMNS,
)

_NULLABLE_EDIT_COLUMNS = frozenset({"direction", "rank", "noise", "posterior_gap", "filtered"})

EDITS = pa.schema(
    [
        pa.field(name, kind, nullable=name in _NULLABLE_EDIT_COLUMNS)
        for name, kind, _ in _EDIT_COLUMNS
    ],
    metadata=_METADATA,
)
"""One row an edit, sorted by (index, edit): commit/<shard>.parquet and manifest/edits-*.parquet. A
run that measures with models has further columns behind these (`edits_with`).
"""


def edits_with(own_columns: Iterable[str]) -> pa.Schema:
    """EDITS and behind it a nullable float32 column for each of `own_columns`."""
    own = [pa.field(name, pa.float32()) for name in own_columns]
    return pa.schema([*EDITS, *own], metadata=_METADATA)


EDIT_MEANINGS = {name: meaning for name, _, meaning in _EDIT_COLUMNS}
"""Column of EDITS -> what it says, for the dataset card."""

_SAMPLE_COLUMNS: tuple[tuple[str, pa.DataType, str], ...] = (
    ("shard", pa.string(), "name of the input shard"),
    ("index", pa.int32(), "position of the sample in its shard, from 0"),
    ("key", pa.string(), "the sample's label in the input shard"),
    ("directions", pa.int32(), "directions found in this image alone, stored in directions/"),
    (
        "network_evaluations",
        pa.float32(),
        "inversion of the sample, reading its h, decoding it",
    ),
    ("jvp_count", pa.int32(), "forward products spent on the sample"),
    ("vjp_count", pa.int32(), "reverse products, likewise"),
    ("psnr", pa.float32(), "of the sample's reconstruction, dB; null: not asked for"),
    *_GEOMETRY_COLUMNS,
)

SAMPLES = pa.schema(
    [pa.field(name, kind, nullable=name == "psnr") for name, kind, _ in _SAMPLE_COLUMNS],
    metadata=_METADATA,
)
"""One row a sample, sorted by index, of a run that edits nothing: commit/<shard>.parquet and
manifest/samples-*.parquet.
"""

SAMPLE_MEANINGS = {name: meaning for name, _, meaning in _SAMPLE_COLUMNS}
"""Column of SAMPLES -> what it says."""

ERRORS = pa.schema(
    [
        _required("shard", pa.string()),
        pa.field("index", pa.int32()),  # null: a stretch of the shard that could not be read
        pa.field("key", pa.string()),
        _required("stage", pa.string()),
        _required("kind", pa.string()),
        _required("message", pa.string()),
    ],
    metadata=_METADATA,
)
"""One row a sample that could not be done: errors/<shard>-<sha16>.parquet, manifest/errors-*."""


_DIRECTION_COLUMNS: tuple[tuple[str, pa.DataType | None, str], ...] = (
    ("id", pa.string(), "hash of vector, space, layer, model and timesteps; 16 hex digits"),
    ("vector", None, "the shift of h, (step, channel, y, x), every step of unit norm"),
    ("type", pa.string(), "direction; learned editors of other types are in editors.parquet"),
    ("space", pa.string(), "h, or x for a shift of x_t"),
    ("h_layer", pa.string(), "before, middle or after the mid block"),
    ("model", pa.string(), "sha256 of the weights"),
    ("timesteps", pa.list_(pa.int32()), "where it was found, one for every step of the vector"),
    ("window", pa.list_(pa.int32()), "highest and lowest timestep to apply it at; null: any"),
    ("method", pa.string(), "how it was found"),
    ("parameters", pa.string(), "of the method, JSON"),
    ("region", pa.string(), "name of the region it changes; `image` when it is tied to none"),
    ("mask_sha256", pa.string(), "of the region's mask"),
    ("shard", pa.string(), "input shard of the image in which it was found; null: of many images"),
    ("index", pa.int32(), "position of that image in its shard"),
    ("key", pa.string(), "label of that image"),
    ("rank", pa.int32(), "0 is the strongest of its region"),
    ("singular_value", pa.float32(), "strength of the model's answer, in the method's units"),
    ("gap", pa.float32(), "next singular value / this one; near 1 it is ill-defined alone"),
    (
        "residual",
        pa.float32(),
        "of the eigenvalue equation, relative; null: not iterative",
    ),
    ("angle", pa.float32(), "estimated sine of the angle to the true singular subspace"),
    ("converged", pa.bool_(), "whether the angle is within the tolerance"),
    ("jvp_count", pa.int32(), "forward products spent on all regions of this image together"),
    ("vjp_count", pa.int32(), "reverse products, likewise"),
    ("sign_rule", pa.string(), "what makes + mean +"),
    ("h_norm", pa.float32(), "the model's mean norm of h at the timestep: the unit of strength"),
    (
        "unit_strength",
        pa.float32(),
        "what strength 1 means, in units of h_norm: 1, of reference what meets the reference",
    ),
    (
        "lengths",
        pa.list_(pa.float32()),
        "factor on the strength at every step, of learned directions; empty: 1",
    ),
    ("parents", pa.list_(pa.string()), "ids, for combinations and merged directions"),
    ("support", pa.int32(), "images it comes from"),
    ("spread", pa.float32(), "mean sine of the angle to the directions it was merged from"),
    ("label", pa.string(), "a name given by a person, or null"),
    ("score", pa.float32(), "what a library is ranked by, higher is better; null: not scored"),
    ("roir", pa.float32(), "median over held-out images of change outside / inside the region"),
    ("in_change", pa.float32(), "median change in the region at which it was scored"),
    ("strength", pa.float32(), "median strength that makes this change"),
    ("consistency", pa.float32(), "mean cosine between the changes it makes in different images"),
    ("linearity", pa.float32(), "median 1 - |full - 2 half| / |full|, changes in the region"),
    ("symmetry", pa.float32(), "median of minus the cosine between the changes at + and -"),
    ("factor", pa.string(), "the factor that moves most, where a regressor is at hand"),
    ("factor_change", pa.float32(), "median change of that factor"),
    ("other_change", pa.float32(), "mean abs(change) of all other factors"),
    ("scored_images", pa.int32(), "held-out images it was scored on"),
)

_NULLABLE_DIRECTION_COLUMNS = frozenset(
    {"window", "shard", "index", "key", "gap", "residual", "angle", "spread", "label", "score"}
    | {"roir", "in_change", "strength", "consistency", "linearity", "symmetry", "factor"}
    | {"factor_change", "other_change", "scored_images"}
)

DIRECTION_MEANINGS = {name: meaning for name, _, meaning in _DIRECTION_COLUMNS}
"""Column of a directions file -> what it says, for the documentation."""


def directions(vector_shape: tuple[int, int, int, int], dtype: str) -> pa.Schema:
    """Schema of a directions file whose vectors have `vector_shape` = (S, C, Y, X) and `dtype`
    float16 or float32.
    """
    value = {"float16": pa.float16(), "float32": pa.float32()}[dtype]
    vector = pa.fixed_shape_tensor(value, vector_shape, dim_names=("step", "channel", "y", "x"))
    return pa.schema(
        [
            pa.field(name, kind or vector, nullable=name in _NULLABLE_DIRECTION_COLUMNS)
            for name, kind, _ in _DIRECTION_COLUMNS
        ],
        metadata=_METADATA,
    )


def directions_like(schema: pa.Schema) -> pa.Schema:
    """The `directions` schema of the shape and dtype that the `vector` column of `schema` has.

    Raises:
        ValueError: there is no such column, or it is not a fixed_shape_tensor of four dimensions
            over float16 or float32.

    """
    kind = schema.field("vector").type if "vector" in schema.names else None
    values = {pa.float16(): "float16", pa.float32(): "float32"}
    if (
        not isinstance(kind, pa.FixedShapeTensorType)
        or len(kind.shape) != 4
        or kind.value_type not in values
    ):
        raise ValueError(
            "expected a column `vector` of fixed_shape_tensor (steps, channels, y, x) over"
            f" float16 or float32, got {kind}"
        )
    steps, channels, y, x = kind.shape
    return directions((steps, channels, y, x), values[kind.value_type])
