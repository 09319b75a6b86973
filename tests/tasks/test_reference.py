"""Directions towards a reference, of a network whose whole way down is a known matrix, against
numpy's least squares.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lib.editing.edit_shifts import EditShifts
from lib.files.image_files import ImageError
from lib.records import Discovered, Failure, Segmented
from lib.reference.images import Reference, ReferenceOf, ReferenceReader
from lib.reference.matching import Approach
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.grid import Grid
from lib.sampling.step_weights import window_weights
from tasks.reference import TOWARDS_REFERENCE, ReferenceDiscoverer

NODE, TOP = 3, 4
WINDOW = (700, 300)
OUTSIDE = 0.5


def discover(
    denoiser: Any, grid: Grid, items: Sequence[Segmented], reference_of: ReferenceOf, **options: Any
) -> tuple[list[Discovered], list[Failure]]:
    norms = {t: 1 + t / 1000 for t in grid.timesteps}
    shapes = (denoiser.h_shape, denoiser.latent_shape)
    stage = ReferenceDiscoverer(
        denoiser,
        node=NODE,
        shifts=EditShifts(grid, WINDOW, "asymmetric", "window", norms, *shapes),
        sampler=DdimSampler(),
        reference_of=reference_of,
        approach=Approach(**{"basis": 8, "rounds": 40, "outside": OUTSIDE} | options),
        parameters={"some": "option"},
        model="weights",
        h_layer="after",
        vector_dtype="float32",
    )
    failures: list[Failure] = []
    return list(stage(items, failures.append)), failures


@pytest.fixture
def item(segmented: Any, grid: Grid, halves: Any) -> Callable[[int], Segmented]:
    """x_t to be found at NODE and to be decoded from TOP are not those of one way, for simplicity:
    the network's response does not depend on x.
    """

    def make(index: int) -> Segmented:
        x_LYX = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(index))
        made: Segmented = segmented(index, x_LYX, grid.timestep(NODE), halves)
        return made

    return make


def other(seed: int) -> ReferenceOf:
    image_CHW = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(seed)) - 0.5
    return lambda _sample: Reference(image_CHW, "ab")


def way_down(
    denoiser: Any, grid: Grid, factors: Callable[[Grid, int], tuple[float, float, float]]
) -> tuple[np.ndarray, np.ndarray]:
    """x_0 = T x_TOP + F v for a shift v of h of strength 1 in the window."""
    T_NN, F_ND = np.eye(48), np.zeros((48, 8))
    weights = window_weights(grid, WINDOW, "asymmetric")
    for node in range(TOP, 0, -1):
        t = grid.timestep(node)
        a, b, from_x0 = factors(grid, node)
        step_NN = a * np.eye(48) + b * denoiser.E_NN(t)
        T_NN, F_ND = step_NN @ T_NN, step_NN @ F_ND
        if node in weights:
            length = weights[node] * (1 + t / 1000)
            F_ND = F_ND + from_x0 * denoiser.gain(t) * length * denoiser.M_at(t)
    return T_NN, F_ND


@pytest.mark.parametrize("drift", [0.0, 0.05])
def test_it_is_nearly_the_least_squares_solution_of_the_whole_way_down(
    make_linear: Any, grid: Grid, item: Any, factors: Any, drift: float
) -> None:
    linear = make_linear()
    linear.drift_ND = drift * np.random.default_rng(5).standard_normal((48, 8)).astype(np.float32)
    (found,), failures = discover(linear, grid, [item(0)], other(9))
    assert not failures
    T_NN, F_ND = way_down(linear, grid, factors)
    image = other(9)(item(0).inverted.sample).image_CHW.numpy().astype(float).ravel()
    plain = T_NN @ item(0).inverted.latent.x_LYX.double().numpy().ravel()
    left = np.tile(np.repeat([[1.0, 1.0, 0.0, 0.0]], 4, axis=0), (3, 1, 1)).ravel()
    for mask, d in zip((left, 1 - left), found.directions, strict=True):
        weight = np.sqrt(mask**2 + OUTSIDE * (1 - mask) ** 2)
        wanted = weight * mask * (image - plain)
        exact_D = np.linalg.lstsq(weight[:, None] * F_ND, wanted, rcond=None)[0]
        v_D = d.vector_SCYX.flatten().double().numpy()
        assert float(d.vector_SCYX.norm()) == pytest.approx(1)
        moved = weight * (F_ND @ v_D)
        assert d.unit_strength == pytest.approx(moved @ wanted / (moved @ moved), rel=0.1)
        rest = wanted - d.unit_strength * moved
        best = wanted - weight * (F_ND @ exact_D)
        explained = 1 - (rest**2).sum() / (wanted**2).sum()
        assert d.parameters["explained"] == pytest.approx(explained, abs=1e-3)
        assert explained > 0.85 * (1 - (best**2).sum() / (wanted**2).sum())
        response = mask * (np.sqrt((1 - grid.alphas[NODE]) / grid.alphas[NODE]))
        t = grid.timestep(NODE)
        jv = response * (linear.gain(t) * linear.M_at(t) @ v_D)
        assert d.singular_value == pytest.approx(np.linalg.norm(jv), rel=1e-3)


def test_a_direction_says_what_it_is_and_what_it_took(linear: Any, grid: Grid, item: Any) -> None:
    (found,), _ = discover(linear, grid, [item(0)], other(9), rounds=2, basis=5)
    assert found.own
    assert [d.region for d in found.directions] == ["left", "right"]
    for d in found.directions:
        assert (d.method, d.space, d.rank, d.index) == ("reference", "h", 0, 0)
        assert (d.timesteps, d.sign_rule) == ((grid.timestep(NODE),), TOWARDS_REFERENCE)
        assert d.vector_SCYX.shape == (1, 2, 2, 2)
        assert float(d.vector_SCYX.norm()) == pytest.approx(1)
        assert (d.jvp_count, d.vjp_count) == (10, 10)
        assert d.parameters["some"] == "option"
        assert d.parameters["reference_sha256"] == "ab"
        assert 0 < d.parameters["explained"] <= d.parameters["explained_linearly"] + 0.5
    passes = linear.rows["predict"] + linear.rows["encode"] + linear.rows["decode"]
    unseen = linear.rows["linearised"]  # recording, and products
    assert found.evaluations <= passes <= found.evaluations + 2 + unseen


def test_the_same_reference_in_a_region_or_none_at_all_is_an_error_row(
    linear: Any, grid: Grid, item: Any
) -> None:
    def same_on_the_right(sample: Any) -> Reference:
        image_CHW = sample.image_CHW.clone()
        image_CHW[:, :, :2] += 0.5
        return Reference(image_CHW, "")

    found, (failure,) = discover(linear, grid, [item(0)], same_on_the_right)
    assert not found
    assert (failure.stage, failure.kind) == ("discover", "no_direction")
    assert "region right: the reference differs from the image there by 0.00" in failure.message

    def none(_sample: Any) -> Reference:
        raise ImageError("missing_reference", "there is none")

    found, (failure,) = discover(linear, grid, [item(0)], none)
    assert not found
    assert (failure.kind, failure.message) == ("missing_reference", "reference: there is none")


def test_nan_and_a_silent_network_are_error_rows_and_the_next_image_goes_on(
    make_linear: Any, grid: Grid, item: Any
) -> None:
    linear = make_linear()
    poisoned = item(0)
    latent = replace(poisoned.inverted.latent, states_SLYX=torch.full((1, 3, 4, 4), torch.nan))
    poisoned = replace(poisoned, inverted=replace(poisoned.inverted, latent=latent))
    found, failures = discover(linear, grid, [poisoned, item(1)], other(9), rounds=2)
    assert [f.kind for f in failures] == ["not_finite"]
    assert [d.segmented.inverted.sample.index for d in found] == [1]
    linear.M_ND[:] = 0
    found, (failure,) = discover(linear, grid, [item(0)], other(9))
    assert failure.kind == "no_direction"
    assert "region left: the image there does not depend on h" in failure.message


def png(image_CHW: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image_CHW.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def test_a_reference_is_read_as_images_are_and_named_by_the_hash_of_its_file(sample: Any) -> None:
    reader = ReferenceReader(size=4, fit="crop", min_side=2, max_pixels=1000)
    pixels_CHW = torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8)
    reference_of = reader.of_side_files("reference.png")
    read = reference_of(sample(0, files={"reference.png": png(pixels_CHW)}))
    torch.testing.assert_close(read.image_CHW, pixels_CHW / 127.5 - 1)
    assert len(read.sha256) == 64
    one = reader.of_one(png(pixels_CHW))(sample(1))
    assert (one.sha256, one.image_CHW.tolist()) == (read.sha256, read.image_CHW.tolist())
    with pytest.raises(ImageError, match=r"side file `reference.png`, the sample has eyes.png"):
        reference_of(sample(0, files={"eyes.png": b""}))
    with pytest.raises(ImageError):
        reference_of(sample(0, files={"reference.png": b"no image"}))
