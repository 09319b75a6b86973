"""Files of latents: read by another library, the same bytes every time, refused when damaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy

from lib.files.latent_files import EMPTY, LatentDamageError, StoredLatents, decode, encode


@pytest.fixture
def stored() -> StoredLatents:
    random = np.random.default_rng(0)
    return StoredLatents(
        timestep=832,
        index_N=np.array([0, 2, 5]),
        image_sha256_N=random.integers(0, 256, (3, 32), dtype=np.uint8),
        states_NSLYX=random.standard_normal((3, 2, 3, 4, 4)),
        noises={832: random.standard_normal((3, 3, 4, 4)).astype(np.float32)},
        x={t: random.standard_normal((3, 3, 4, 4)).astype(np.float16) for t in (999, 332)},
        failed=((1, "not_finite", "it is NaN"),),
        source={"model": "ab", "grid": [332, 832, 999], "invert": {"method": "edict"}},
    )


def test_another_library_reads_what_is_in_it(stored: StoredLatents) -> None:
    found = safetensors.numpy.load(encode(stored))
    assert set(found) == {"index", "image_sha256", "states", "noise/832", "x/999", "x/332"}
    np.testing.assert_array_equal(found["states"], stored.states_NSLYX)
    assert found["states"].dtype == np.float64
    np.testing.assert_array_equal(found["x/332"], stored.x[332])


def test_it_comes_back_and_the_order_of_its_parts_changes_no_byte(stored: StoredLatents) -> None:
    data = encode(stored)
    again = decode(data, "here")
    assert encode(again) == data
    assert encode(replace(stored, x=dict(reversed(stored.x.items())))) == data
    assert (again.timestep, again.failed, again.source) == (832, stored.failed, stored.source)
    np.testing.assert_array_equal(again.noises[832], stored.noises[832])
    assert [again.row(index) for index in range(7)] == [0, None, 1, None, None, 2, None]
    assert decode(encode(EMPTY), "here").row(0) is None


def test_damage_is_named_with_its_place(stored: StoredLatents) -> None:
    data = encode(stored)
    foreign = safetensors.numpy.save({"a": np.zeros(1)})
    later = data.replace(rb"\"version\":1", rb"\"version\":9")
    assert later != data
    for damaged in (b"", data[:-1], data[: len(data) // 2], foreign, later):
        with pytest.raises(LatentDamageError, match="latents/a: expected a whole latents file"):
            decode(damaged, "latents/a")


def test_rows_that_do_not_belong_together_are_refused(stored: StoredLatents) -> None:
    with pytest.raises(ValueError, match="expected arrays of 3 rows"):
        replace(stored, noises={832: stored.noises[832][:2]})
    with pytest.raises(ValueError, match="ascending indices"):
        replace(stored, index_N=np.array([0, 5, 2]))
