from functools import cache

import pytest
import torch

from lib.demo.faces import (
    CLASSES,
    FACTORS,
    ZONES,
    Masks,
    counterfactual,
    masks,
    render,
    sample_factors,
)

FACES_BF = sample_factors(8, seed=41)


@cache
def masks_of_size(size: int) -> Masks:
    return masks(FACES_BF, size)


def test_same_seed_gives_the_same_bytes() -> None:
    first = render(sample_factors(3, seed=5)).image_BCHW
    again = render(sample_factors(3, seed=5)).image_BCHW
    other = render(sample_factors(3, seed=6)).image_BCHW
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_face_does_not_depend_on_its_batch() -> None:
    alone = render(FACES_BF[7:8]).image_BCHW
    together = render(FACES_BF).image_BCHW[7:8]
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "supersampling"), [(32, 2), (64, 1), (64, 2), (97, 3)])
def test_any_resolution_stays_in_range(size: int, supersampling: int) -> None:
    faces = render(FACES_BF[:2], size, supersampling)
    assert faces.image_BCHW.shape == (2, 3, size, size)
    assert faces.image_BCHW.dtype == torch.float32
    assert faces.image_BCHW.abs().max() <= 1


def test_a_larger_picture_shows_the_same_face() -> None:
    small = render(FACES_BF[:4], 64, 4).image_BCHW
    large = render(FACES_BF[:4], 256, 1).image_BCHW
    shrunk = torch.nn.functional.avg_pool2d(large, 4)
    assert (small - shrunk).abs().mean() < 0.01


def test_segmentation_sums_to_one_and_names_every_class() -> None:
    segmentation_BKHW = masks_of_size(64).segmentation_BKHW
    assert segmentation_BKHW.shape == (8, len(CLASSES), 64, 64)
    assert (segmentation_BKHW.sum(1) - 1).abs().max() < 1e-6
    assert segmentation_BKHW.min() >= 0
    assert (segmentation_BKHW.sum((2, 3)) > 4).all()


def test_zones_are_coverages_and_hold_the_visible_parts() -> None:
    found = masks_of_size(64)
    assert set(found.zones) == set(ZONES)
    for name, zone_BHW in found.zones.items():
        part_BHW = found.segmentation_BKHW[:, CLASSES.index(name)]
        assert zone_BHW.shape == (8, 64, 64)
        assert zone_BHW.min() >= 0
        assert zone_BHW.max() <= 1
        assert (part_BHW - zone_BHW).max() < 1e-4
    overlap = (found.zones["eyes"] * found.zones["brows"]).sum()
    assert overlap < 0.03 * found.zones["brows"].sum()


@pytest.mark.parametrize(
    ("factor", "zone"),
    [
        ("smile", "mouth"), ("mouth_open", "mouth"), ("lip_col", "mouth"),
        ("eye_open", "eyes"), ("eye_col", "eyes"), ("gaze", "eyes"), ("brow", "brows"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("size", [32, 64])
def test_a_counterfactual_changes_pixels_in_its_zone_only(
    factor: str, zone: str, size: int
) -> None:
    zone_BHW = masks_of_size(size).zones[zone]
    before = render(FACES_BF, size).image_BCHW
    for change in (-2.0, 0.5, 2.0):
        after = render(counterfactual(FACES_BF, factor, change), size).image_BCHW
        change_BHW = (after - before).abs().amax(1)
        assert change_BHW[zone_BHW == 0].max() == 0
    assert (after - before).abs().amax(1)[zone_BHW > 0.5].max() > 0.2


def test_a_zone_does_not_depend_on_the_factors_that_move_its_part() -> None:
    found = masks_of_size(64)
    for factor, zone in (("smile", "mouth"), ("eye_open", "eyes"), ("brow", "brows")):
        moved = masks(counterfactual(FACES_BF[:2], factor, 2.0))
        assert torch.equal(found.zones[zone][:2], moved.zones[zone])


def test_counterfactual_moves_one_factor_and_clips_it() -> None:
    moved_BF = counterfactual(FACES_BF, "smile", 1.0)
    column = FACTORS.index("smile")
    expected_B = (FACES_BF[:, column] + 1).clamp(max=1)
    assert torch.equal(moved_BF[:, column], expected_B)
    others = [i for i in range(len(FACTORS)) if i != column]
    assert torch.equal(moved_BF[:, others], FACES_BF[:, others])


def test_wrong_number_of_factors_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, 16\), got \(2, 15\)"):
        render(FACES_BF[:2, :15])
