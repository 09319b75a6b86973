"""Small shard results of known content, for the ledger tests and the writer they kill."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from lib.files import schemas
from lib.files.tar_writer import write_tar
from lib.ledger.commit import ShardResult
from lib.receipts import Failure

EDITS_PER_SAMPLE = 2
VECTOR_SHAPE = (1, 8, 2, 2)


def direction_id(shard: str, index: int) -> str:
    return hashlib.sha256(f"{shard}/{index}".encode()).hexdigest()[:16]


def vector(shard: str, index: int, dtype: str = "float16") -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(f"{shard}/{index}".encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal(VECTOR_SHAPE).astype(dtype)


def edit_rows(shard: str, indices: Sequence[int], images: dict[str, bytes]) -> pa.Table:
    rows = []
    for index in indices:
        for edit in range(EDITS_PER_SAMPLE):
            member = f"{shard}-{index:06d}-{edit:03d}.png"
            row = {
                "shard": shard, "index": index, "key": f"face-{index}", "edit": edit, "image": "",
                "member": member, "sha256": hashlib.sha256(images[member]).hexdigest(),
                "region": ("eyes", "mouth")[edit % 2], "mask_sha256": "ab" * 32, "mask_area": 0.1,
                "direction": direction_id(shard, index), "rank": 0, "strength": 0.1 * (edit + 1),
                "added_directions": [direction_id(shard, index)][:edit], "noise": None,
                "added_regions": ["hair"][:edit], "added_ranks": [1][:edit],
                "added_strengths": [0.25][:edit],
                "injection": "asymmetric", "t_high": 899, "t_low": 299, "in_change": 0.25,
                "in_l2": 0.1, "out_l2": 0.01, "in_ssim": 0.5,
                "out_ssim": 0.9, "roir_original": 0.3, "reconstruction_l1": 0.01,
                "reconstruction_l2": 0.001, "reconstruction_ssim": 0.99, "posterior_gap": None,
                "filtered": None,
                "out_change": 0.05, "roir": 0.2, "psnr": 40.0, "network_evaluations": 36.0,
                "source_width": 64, "source_height": 64, "crop_left": 0, "crop_top": 0,
                "crop_width": 64, "crop_height": 64,
            }  # fmt: skip
            rows.append(row)
    return pa.Table.from_pylist(rows, schema=schemas.EDITS)


def direction_rows(shard: str, indices: Sequence[int], dtype: str = "float16") -> pa.Table:
    schema = schemas.directions(VECTOR_SHAPE, dtype)
    kind = schema.field("vector").type
    flat = np.concatenate([vector(shard, index, dtype).ravel() for index in indices])
    plain = {
        "space": "h", "h_layer": "after", "model": "cd" * 32, "timesteps": [368],
        "method": "jacobian", "parameters": "{}", "region": "eyes", "mask_sha256": "ab" * 32,
        "shard": shard, "rank": 0, "singular_value": 3.0, "gap": 0.5, "residual": 0.01,
        "angle": 0.02, "converged": True, "jvp_count": 40, "vjp_count": 38,
        "sign_rule": "largest_positive", "h_norm": 12.5, "unit_strength": 1.0, "parents": [],
        "type": "direction", "lengths": [],
        "support": 1,
    }  # fmt: skip
    columns = []
    for field in schema:
        if field.name == "vector":
            storage = pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(VECTOR_SHAPE)))
            columns.append(pa.ExtensionArray.from_storage(kind, storage))
        elif field.name == "id":
            columns.append(pa.array([direction_id(shard, index) for index in indices]))
        elif field.name in ("index", "key"):
            values = [index if field.name == "index" else f"face-{index}" for index in indices]
            columns.append(pa.array(values, field.type))
        else:
            columns.append(pa.array([plain.get(field.name)] * len(indices), field.type))
    return pa.table(columns, schema=schema)


def shard_result(
    shard: str = "00000",
    n_in: int = 5,
    failed: Sequence[int] = (3,),
    *,
    pixels: bytes = b"pixels",
    image_bytes: int = 200,
    own: bool = True,
) -> ShardResult:
    """`n_in` samples of two edits each; those of `failed` are errors instead."""
    ok = [index for index in range(n_in) if index not in failed]
    images = {}
    for index in ok:
        for edit in range(EDITS_PER_SAMPLE):
            text = pixels + f"{shard}/{index}/{edit}".encode()
            images[f"{shard}-{index:06d}-{edit:03d}.png"] = (text * image_bytes)[:image_bytes]
    return ShardResult(
        shard=shard,
        n_in=n_in,
        input_size=1234,
        input_sha256="0" * 64,
        images=write_tar(sorted(images.items())) if images else b"",
        rows=edit_rows(shard, ok, images),
        directions=direction_rows(shard, ok) if own and ok else None,
        failures=tuple(
            Failure(shard, index, f"face-{index}", "decode", "truncated", "it ends early")
            for index in failed
        ),
    )
