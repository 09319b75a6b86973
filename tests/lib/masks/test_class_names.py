"""The published orders against the numbers that other projects write down, and what labels mean."""

from __future__ import annotations

import pytest

from lib.masks.class_names import (
    BISENET,
    CELEBAMASK_HQ,
    PARTS,
    mixed_orders,
    numbers_of,
    parts_of,
)


def test_the_two_orders_are_those_that_are_published() -> None:
    """Numbers as in the README of CelebAMask-HQ and in the code around BiSeNet's weights."""
    first = {name: number for number, name in enumerate(CELEBAMASK_HQ)}
    second = {name: number for number, name in enumerate(BISENET)}
    assert (first["nose"], first["l_eye"], first["hair"], first["cloth"]) == (2, 4, 13, 18)
    assert (second["l_brow"], second["eye_g"], second["nose"], second["hair"]) == (2, 6, 10, 17)
    assert (second["neck"], second["neck_l"], second["hat"]) == (14, 15, 18)
    assert first.keys() == second.keys()
    assert len(first) == 19
    assert set(PARTS) == first.keys() - {"background"}


def test_left_and_right_and_lips_are_under_one_name_by_default() -> None:
    assert set(parts_of("eyes", PARTS, unite=True)) == {"l_eye", "r_eye"}
    assert set(parts_of("mouth", PARTS, unite=True)) == {"mouth", "u_lip", "l_lip"}
    assert set(parts_of("neck", PARTS, unite=True)) == {"neck", "neck_l"}
    assert parts_of("l_eye", PARTS, unite=True) == ("l_eye",)
    assert parts_of("mouth", PARTS, unite=False) == ("mouth",)
    names = dict(enumerate(BISENET))
    assert numbers_of(["eyes", "brows", 17], names, unite=True) == (2, 3, 4, 5, 17)


def test_a_union_takes_the_parts_that_a_list_has() -> None:
    assert parts_of("mouth", ["mouth", "eye"], unite=True) == ("mouth",)
    assert parts_of("ears", ["l_ear", "hair"], unite=True) == ("l_ear",)


def test_unknown_labels_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="no class is called 'haar'; the nearest is 'hair'"):
        parts_of("haar", PARTS, unite=True)
    with pytest.raises(ValueError, match="no class is called 'eyes'; the nearest is"):
        parts_of("eyes", PARTS, unite=False)
    with pytest.raises(ValueError, match="no class has the number 19; expected one from 0 to 18"):
        numbers_of([19], dict(enumerate(BISENET)), unite=True)


def test_a_table_that_mixes_both_orders_is_seen() -> None:
    mixed = mixed_orders({"nose": 2, "hair": 17})
    assert mixed == "nose: 2 is of the order celebamask_hq and hair: 17 of bisenet"
    assert mixed_orders({"skin": 1, "hair": 17, "nose": 10}) is None
    assert mixed_orders({"skin": 1, "hair": 13, "nose": 2}) is None
    assert mixed_orders({"sky": 2, "tree": 17}) is None
