from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.fingerprint import canonical_json, fingerprint, sample_seed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_canonical_json_means_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(st.text(), st.integers(), min_size=2), st.randoms())
def test_the_order_of_keys_does_not_matter(fields: dict[str, int], order: random.Random) -> None:
    items = list(fields.items())
    order.shuffle(items)
    assert fingerprint(dict(items)) == fingerprint(fields)


def test_the_fingerprint_is_the_sha256_of_the_written_out_json() -> None:
    text = '{"edit":{"strengths":[-0.1,0.1]},"grid":{"num_steps":50},"label":"Δh"}'
    fields = {"label": "Δh", "grid": {"num_steps": 50}, "edit": {"strengths": (-0.1, 0.1)}}
    assert fingerprint(fields) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_lacks_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint({"a": value})


def test_keys_that_json_would_merge_are_refused() -> None:
    with pytest.raises(TypeError, match="string keys, got 1"):
        fingerprint({"a": [{1: "x"}]})


def test_seeds_fit_63_bits_and_differ_in_each_of_their_three_sources() -> None:
    seeds = {
        sample_seed(run, shard, index)
        for run in ("aa", "bb")
        for shard in ("1", "11")
        for index in range(1000)
    }
    assert len(seeds) == 4000
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**62


def test_shard_and_index_do_not_run_into_each_other() -> None:
    assert sample_seed("aa", "1", 11) != sample_seed("aa", "11", 1)


def test_the_folder_and_the_fingerprint_import_neither_pyarrow_nor_torch() -> None:
    code = (
        "import sys, lib.fingerprint; from lib.ledger import run_folder, run_record, quarantine;"
        "sys.exit(bool({'pyarrow', 'torch', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
