"""Every method that works on one image, on a network whose Jacobians are known matrices: numpy and
scipy in float64 say what it should find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from lib.direction import Direction
from lib.discovery.localised import localised_directions
from lib.discovery.masked_jacobian import masked_jacobian
from lib.discovery.null_space import null_space_directions
from lib.discovery.region_problem import RegionProblem, Search
from lib.discovery.shared_variation import ajive_directions, jive_directions
from lib.discovery.signs import SIGN_RULE, TIE
from lib.discovery.subspace import AdjointError
from lib.discovery.text_guided import TOWARDS_TARGET, text_directions
from lib.records import Failure, Segmented
from lib.regions import make_region
from lib.sampling.grid import Grid
from tasks.discover import JacobianDiscoverer, Recipe, Stamp

NODE, K = 3, 2
TRADE_OFF, NULL_RANK, FACTORS, JOINT, OWN = 0.1, 3, 8, 2, 2
SEARCH = Search(K, 1e-3, 60)
WISH_CHW = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(77))
WISH_N = WISH_CHW.flatten().double().numpy()


class Wish:
    """A text-image model that asks for the same change of every image; + is towards the target."""

    def similarity(self, image_BCHW: Tensor, text: str) -> Tensor:
        raise NotImplementedError

    def gradient(self, image_BCHW: Tensor, source: str, target: str) -> Tensor:
        assert image_BCHW.shape == (1, 3, 4, 4)
        return (1 if (source, target) == ("plain", "wish") else -1) * WISH_CHW[None]


def text(null_rank: int, *texts: str) -> Any:
    return partial(
        text_directions, text_image=Wish(), texts=texts or ("plain", "wish"), null_rank=null_rank,
        max_rounds=60,
    )  # fmt: skip


METHODS: dict[str, Any] = {
    "jacobian": partial(masked_jacobian, search=SEARCH),
    "localised": partial(localised_directions, search=SEARCH, trade_off=TRADE_OFF),
    "null_space": partial(null_space_directions, search=SEARCH, null_rank=NULL_RANK),
    "jive": partial(
        jive_directions, search=SEARCH, factor_rank=FACTORS, joint_rank=JOINT, individual_rank=OWN
    ),
    "ajive": partial(
        ajive_directions, search=SEARCH, factor_rank=FACTORS, joint_rank=JOINT, individual_rank=OWN
    ),
    "text": text(0),
}
CONTRASTS = ("jive", "ajive")


def discover(
    denoiser: Any, grid: Grid, items: Sequence[Segmented], method: str | Any, **options: Any
) -> tuple[list[tuple[Direction, ...]], list[Failure]]:
    name = method if isinstance(method, str) else "method"
    nodes = options.pop("nodes", [NODE])
    options.setdefault("sign_rule", TOWARDS_TARGET if name == "text" else SIGN_RULE)
    stage = JacobianDiscoverer(
        denoiser,
        grid,
        nodes=nodes,
        recipe=Recipe(
            name,
            METHODS[method] if isinstance(method, str) else method,
            {"some": "option"},
            contrasts=name in CONTRASTS,
            **options,
        ),
        stamp=Stamp("weights", "after", {t: t / 100 for t in grid.timesteps}, "float32"),
    )
    failures: list[Failure] = []
    return [one.directions for one in stage(items, failures.append)], failures


@pytest.fixture
def masks(halves: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two halves and a soft region across both."""
    ramp_HW = torch.linspace(0, 1, 4).expand(4, 4)
    return halves | {"soft": make_region("soft", ramp_HW).mask_HW.contiguous()}


@pytest.fixture
def item(segmented: Any, grid: Grid, masks: dict[str, Tensor]) -> Callable[..., Segmented]:
    """An image whose x_t is the same at every timestep."""

    def make(index: int, chosen: dict[str, Tensor] | None = None) -> Segmented:
        x_LYX = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(index))
        found: Segmented = segmented(index, x_LYX, grid.timestep(NODE), chosen or masks)
        found.inverted.states_LYX.update(dict.fromkeys(grid.timesteps, x_LYX))  # type: ignore[attr-defined]
        return found

    return make


# -- the same in float64 ------------------------------------------------------------------------


def matrix(denoiser: Any, grid: Grid, space: str, node: int = NODE) -> np.ndarray:
    """d P_t / d h or d P_t / d x_t."""
    alpha, t = grid.alphas[node], grid.timestep(node)
    if space == "h":
        return np.asarray(-np.sqrt((1 - alpha) / alpha) * denoiser.gain(t) * denoiser.M_at(t))
    E_NN = denoiser.E_NN(t)
    return np.asarray((np.eye(len(E_NN)) - np.sqrt(1 - alpha) * E_NN) / np.sqrt(alpha))


def flat(mask_HW: Tensor) -> np.ndarray:
    return np.asarray(mask_HW.expand(3, -1, -1).flatten().double().numpy())


def right(J_ND: np.ndarray, count: int) -> np.ndarray:
    return np.asarray(np.linalg.svd(J_ND)[2][:count])


def unit(rows_KD: np.ndarray) -> np.ndarray:
    return np.asarray(rows_KD / np.linalg.norm(rows_KD, axis=1, keepdims=True))


def strongest_first(J_ND: np.ndarray, V_KD: np.ndarray) -> np.ndarray:
    V_KD = unit(V_KD)
    return V_KD[np.argsort(-np.linalg.norm(V_KD @ J_ND.T, axis=1))]


def localised_exact(J_ND: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    answers = []
    for m in masks:
        A, C = m[:, None] * J_ND, (1 - m)[:, None] * J_ND
        ridge = TRADE_OFF * np.linalg.norm(A, 2) ** 2 * np.eye(J_ND.shape[1])
        answers.append(unit(scipy.linalg.eigh(A.T @ A, C.T @ C + ridge)[1].T[::-1][:K]))
    return answers


def null_space_exact(J_ND: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    answers = []
    for m in masks:
        V_KD, N_RD = right(m[:, None] * J_ND, K), right((1 - m)[:, None] * J_ND, NULL_RANK)
        answers.append(strongest_first(m[:, None] * J_ND, V_KD - V_KD @ N_RD.T @ N_RD))
    return answers


def jive_exact(J_ND: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    """Algorithm 3 of Kouzelis et al. on the whole matrices, long."""
    blocks = [m[:, None] * J_ND for m in masks]
    parts = [0 * block for block in blocks]
    for _ in range(3000):
        rest = np.concatenate([x - a for x, a in zip(blocks, parts, strict=True)])
        C = right(rest, JOINT)
        for r, x in enumerate(blocks):
            u, s, vt = np.linalg.svd(x - x @ C.T @ C, full_matrices=False)
            parts[r] = u[:, :OWN] * s[:OWN] @ vt[:OWN]
    return [strongest_first(x, right(a, K)) for x, a in zip(blocks, parts, strict=True)]


def ajive_exact(J_ND: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    blocks = [m[:, None] * J_ND for m in masks]
    C = right(np.concatenate([right(x, FACTORS // 2) for x in blocks]), JOINT)
    return [strongest_first(x, right(x - x @ C.T @ C, K)) for x in blocks]


EXACT: dict[str, Callable[[np.ndarray, list[np.ndarray]], list[np.ndarray]]] = {
    "jacobian": lambda J, masks: [right(m[:, None] * J, K) for m in masks],
    "localised": localised_exact,
    "null_space": null_space_exact,
    "jive": jive_exact,
    "ajive": ajive_exact,
    "text": lambda J, masks: [unit((m * WISH_N @ J)[None]) for m in masks],
}


def vectors(directions: Sequence[Direction], region: str) -> np.ndarray:
    """(K, S * D) of one region by rank."""
    found = sorted((d for d in directions if d.region == region), key=lambda d: d.rank)
    return np.stack([d.vector_SCYX.flatten().double().numpy() for d in found])


@pytest.mark.parametrize(
    ("method", "space"),
    [(m, s) for m in METHODS for s in ("h", "x") if s == "h" or m not in CONTRASTS],
)
def test_directions_and_their_strength_are_those_of_float64(
    linear: Any, grid: Grid, item: Any, masks: dict[str, Tensor], method: str, space: str
) -> None:
    (found,), failures = discover(linear, grid, [item(0)], method, space=space)
    assert not failures
    J_ND = matrix(linear, grid, space)
    expected = EXACT[method](J_ND, [flat(m) for m in masks.values()])
    for (name, mask_HW), exact_KD in zip(masks.items(), expected, strict=True):
        own = [d for d in found if d.region == name]
        V_KD = vectors(found, name)
        assert len(V_KD) == len(exact_KD)
        np.testing.assert_allclose(np.abs((V_KD * exact_KD).sum(1)), 1, atol=2e-3)
        answers_KN = V_KD @ J_ND.T
        strengths = [d.singular_value for d in own]
        if method == "text":
            wish_N = flat(mask_HW) * WISH_N
            strength = answers_KN[0] @ wish_N / np.linalg.norm(wish_N)
            assert strengths == pytest.approx([strength], rel=1e-5)
        else:
            inside_K = np.linalg.norm(answers_KN * flat(mask_HW), axis=1)
            np.testing.assert_allclose(strengths, inside_K, rtol=1e-3)
        for d in own:
            assert (d.space, d.method, d.converged) == (space, method, True)
            assert d.vector_SCYX.shape[1:] == ((2, 2, 2) if space == "h" else (3, 4, 4))
            expected_products = "linearised" if space == "h" else "forward"
            assert d.parameters == {"some": "option", "products": expected_products}
            assert d.h_norm == (grid.timestep(NODE) / 100 if space == "h" else np.sqrt(48))


def test_a_texts_null_space_is_that_of_the_rest_and_its_sign_that_of_the_texts(
    linear: Any, grid: Grid, item: Any, masks: dict[str, Tensor]
) -> None:
    (found,), _ = discover(linear, grid, [item(0)], text(NULL_RANK), sign_rule=TOWARDS_TARGET)
    back = text(NULL_RANK, "wish", "plain")
    (opposite,), _ = discover(linear, grid, [item(0)], back, sign_rule=TOWARDS_TARGET)
    J_ND = matrix(linear, grid, "h")
    for name, mask_HW in masks.items():
        wish_N = flat(mask_HW) * WISH_N
        N_RD = right((1 - flat(mask_HW))[:, None] * J_ND, NULL_RANK)
        v_D = J_ND.T @ wish_N
        v_D = unit((v_D - v_D @ N_RD.T @ N_RD)[None])[0]
        assert vectors(found, name)[0] @ v_D == pytest.approx(1, abs=2e-3)
        np.testing.assert_array_equal(vectors(opposite, name), -vectors(found, name))
        (d,) = [d for d in found if d.region == name]
        assert d.sign_rule == TOWARDS_TARGET
        strength = J_ND @ v_D @ wish_N / np.linalg.norm(wish_N)
        assert d.singular_value == pytest.approx(strength, rel=1e-2)


@pytest.mark.parametrize("products", ["linearised", "forward", "difference", "double_backward"])
@pytest.mark.parametrize("method", ["jacobian", "localised", "null_space"])
def test_every_way_to_make_products_gives_the_same_and_is_recorded(
    linear: Any, grid: Grid, item: Any, masks: dict[str, Tensor], method: str, products: str
) -> None:
    (found,), failures = discover(linear, grid, [item(0)], method, products=products, chunk=3)
    assert not failures
    expected = EXACT[method](matrix(linear, grid, "h"), [flat(m) for m in masks.values()])
    for name, exact_KD in zip(masks, expected, strict=True):
        cosines = np.abs((vectors(found, name) * exact_KD).sum(1))
        np.testing.assert_allclose(cosines, 1, atol=2e-3)
    assert {d.parameters["products"] for d in found} == {products}


@pytest.mark.parametrize("method", METHODS)
def test_signs_do_not_depend_on_the_order_of_samples_and_regions(
    linear: Any, grid: Grid, item: Any, masks: dict[str, Tensor], method: str
) -> None:
    turned = dict(reversed(masks.items()))
    one, _ = discover(linear, grid, [item(0), item(1)], method)
    backward, _ = discover(linear, grid, [item(1), item(0)], method)
    other, _ = discover(linear, grid, [item(0, turned), item(1, turned)], method)
    assert [d.id for ds in one for d in ds] == [d.id for ds in reversed(backward) for d in ds]
    for first, second in zip(one, other, strict=True):
        for name, mask_HW in masks.items():
            V_KD = vectors(first, name)
            np.testing.assert_allclose((V_KD * vectors(second, name)).sum(1), 1, atol=2e-3)
            if method != "text":
                answers_KN = V_KD @ matrix(linear, grid, "h").T * flat(mask_HW)
                brightness_K = answers_KN.sum(1) / np.abs(answers_KN).sum(1)
                assert (brightness_K > -2 * TIE).all(), "below TIE, the largest entry decides"


# -- several timesteps --------------------------------------------------------------------------

STEPS = [4, 3, 2]


@pytest.fixture
def drifting(make_linear: Any) -> Any:
    """Right singular vectors that turn with t, and change places."""
    made = make_linear()
    made.drift_ND = 2 * make_linear(seed=5).M_ND
    return made


@pytest.mark.parametrize("space", ["h", "x"])
@pytest.mark.parametrize("method", ["jacobian", "localised"])
def test_every_step_is_exact_and_matched_and_signed_to_the_one_above(
    drifting: Any, grid: Grid, item: Any, masks: dict[str, Tensor], method: str, space: str
) -> None:
    (found,), failures = discover(
        drifting, grid, [item(0)], method, space=space, nodes=list(reversed(STEPS))
    )
    assert not failures
    width = 8 if space == "h" else 48
    exact_SRKD = [
        EXACT[method](matrix(drifting, grid, space, node), [flat(m) for m in masks.values()])
        for node in STEPS
    ]
    for r, (name, mask_HW) in enumerate(masks.items()):
        V_KSD = vectors(found, name).reshape(K, len(STEPS), width)
        np.testing.assert_allclose(np.linalg.norm(V_KSD, axis=2), 1, atol=1e-6)
        for s, exact_RKD in enumerate(exact_SRKD):
            cosines_KK = np.abs(V_KSD[:, s] @ exact_RKD[r].T)
            np.testing.assert_allclose(cosines_KK.max(1), 1, atol=3e-3)
            assert sorted(cosines_KK.argmax(1)) == list(range(K))
            if s == 0:
                assert list(cosines_KK.argmax(1)) == list(range(K)), "ranked at the highest"
                continue
            above_KK = V_KSD[:, s - 1] @ V_KSD[:, s].T
            assert (above_KK.diagonal() > 0).all()
            best = max(
                sum(abs(above_KK[k, p[k]]) for k in range(K)) for p in permutations(range(K))
            )
            assert np.abs(above_KK.diagonal()).sum() == pytest.approx(best)
        brightness_K = V_KSD[:, 0] @ (flat(mask_HW) @ matrix(drifting, grid, space, STEPS[0]))
        assert (brightness_K > 0).all()
    assert {d.timesteps for d in found} == {tuple(grid.timestep(n) for n in STEPS)}


def test_a_step_starts_from_the_directions_of_the_one_above(
    drifting: Any, grid: Grid, item: Any
) -> None:
    seen: list[tuple[list[Tensor], list[Tensor]]] = []

    def watched(problem: RegionProblem) -> Any:
        spectra = masked_jacobian(problem, SEARCH)
        seen.append((list(problem.start), [s.V_KD for s in spectra]))
        return spectra

    discover(drifting, grid, [item(0)], watched, nodes=STEPS)
    assert [len(start) for start, _ in seen] == [0, 3, 3]
    for (_, above), (start, _) in pairwise(seen):
        assert all(torch.equal(a, b) for a, b in zip(above, start, strict=True))


# -- bad input ----------------------------------------------------------------------------------


def misreported(denoiser: Any, below: int) -> None:
    """A linearisation that is wrong at the timesteps below, as of a network with hidden
    nonlinearities.
    """
    right_one = denoiser.linearised
    denoiser.linearised = lambda point: (
        lambda v: right_one(point)(v) * (1.3 if point.t < below else 1.0)
    )


@pytest.mark.parametrize("method", ["jacobian", "localised", "null_space", "jive"])
def test_wrong_linearisations_are_noticed_and_replaced_by_forward_products(
    drifting: Any, grid: Grid, item: Any, masks: dict[str, Tensor], method: str
) -> None:
    (exact,), _ = discover(drifting, grid, [item(0)], method, nodes=STEPS, products="forward")
    misreported(drifting, below=grid.timestep(STEPS[0]))
    (found,), failures = discover(drifting, grid, [item(0)], method, nodes=STEPS)
    assert not failures
    assert [d.id for d in found] == [d.id for d in exact]
    assert {d.parameters["products"] for d in found} == {"forward"}


def test_products_that_stay_wrong_are_an_error_row(linear: Any, grid: Grid, item: Any) -> None:
    def never(problem: RegionProblem) -> Any:
        raise AdjointError("forward and reverse products differ by 1e-1")

    for products in ("linearised", "forward", "difference"):
        found, failures = discover(linear, grid, [item(0)], never, products=products)
        assert not found
        assert [(f.index, f.kind) for f in failures] == [(0, "inexact_products")]


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_region_is_rejected_by_its_name(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor], method: str
) -> None:
    chosen = halves | {"nowhere": torch.zeros(4, 4)}
    found, failures = discover(linear, grid, [item(0, chosen)], method)
    assert not found
    assert [(f.stage, f.kind) for f in failures] == [("discover", "no_direction")]
    assert "region nowhere" in failures[0].message


@pytest.mark.parametrize("method", METHODS)
def test_a_region_that_does_not_respond_is_rejected_by_its_name(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor], method: str
) -> None:
    linear.M_ND[flat(halves["right"]) > 0] = 0
    found, failures = discover(linear, grid, [item(0, halves)], method)
    assert not found
    assert [f.kind for f in failures] == ["no_direction"]
    assert "region right" in failures[0].message
    linear.M_ND[:] = 0
    found, failures = discover(linear, grid, [item(0, halves)], method)
    assert not found
    assert "region left" in failures[0].message


@pytest.mark.parametrize("method", ["jacobian", "localised", "null_space"])
def test_a_region_that_is_the_whole_image_has_the_plain_singular_directions(
    linear: Any, grid: Grid, item: Any, method: str
) -> None:
    (found,), failures = discover(linear, grid, [item(0, {"all": torch.ones(4, 4)})], method)
    assert not failures
    exact_KD = right(matrix(linear, grid, "h"), K)
    np.testing.assert_allclose(np.abs((vectors(found, "all") * exact_KD).sum(1)), 1, atol=2e-3)


@pytest.mark.parametrize("method", ["jacobian", "localised", "null_space"])
def test_two_equal_regions_have_equal_directions(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor], method: str
) -> None:
    chosen = {"left": halves["left"], "twin": halves["left"]}
    (found,), failures = discover(linear, grid, [item(0, chosen)], method)
    assert not failures
    cosines = (vectors(found, "left") * vectors(found, "twin")).sum(1)
    np.testing.assert_allclose(cosines, 1, atol=2e-3)


@pytest.mark.parametrize("method", CONTRASTS)
def test_methods_that_compare_regions_refuse_two_equal_ones(
    linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor], method: str
) -> None:
    chosen = halves | {"twin": halves["left"]}
    found, failures = discover(linear, grid, [item(0, chosen), item(1, halves)], method)
    assert len(found) == 1
    assert [(f.index, f.kind) for f in failures] == [(0, "identical_regions")]
    assert "left and twin" in failures[0].message


def test_where_regions_share_all_they_have_nothing_is_their_own(
    make_linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    found, failures = discover(make_linear(rank=JOINT), grid, [item(0, halves)], "jive")
    assert not found
    assert [f.kind for f in failures] == ["no_direction"]
    assert "region left has no direction of its own" in failures[0].message


def test_a_null_space_that_takes_everything_is_an_error_row(
    make_linear: Any, grid: Grid, item: Any, halves: dict[str, Tensor]
) -> None:
    found, failures = discover(make_linear(rank=2), grid, [item(0, halves)], "null_space")
    assert not found
    assert [f.kind for f in failures] == ["no_direction"]
    assert "region left: direction 0 of 2 lies in the span" in failures[0].message


@pytest.mark.parametrize("space", ["h", "x"])
@pytest.mark.parametrize("method", ["jacobian", "localised"])
def test_more_directions_than_the_rank_are_as_many_as_the_rank(
    make_linear: Any, grid: Grid, item: Any, method: str, space: str
) -> None:
    """In h the network has rank 2; in x a region of one pixel has the rank of its three colours."""
    pixel_HW = torch.zeros(4, 4)
    pixel_HW[1, 2] = 1
    many = Search(5, 1e-2, 60)
    wanted = {
        "jacobian": partial(masked_jacobian, search=many),
        "localised": partial(localised_directions, search=many, trade_off=TRADE_OFF),
    }[method]
    network = make_linear(rank=2) if space == "h" else make_linear()
    (found,), failures = discover(
        network, grid, [item(0, {"pixel": pixel_HW})], wanted, space=space
    )
    assert not failures
    V_KD = vectors(found, "pixel")
    rank = 2 if space == "h" else 3
    assert len(V_KD) == rank
    answers_KN = V_KD @ matrix(network, grid, space).T * flat(pixel_HW)
    assert np.linalg.matrix_rank(answers_KN, tol=1e-4) == rank
    assert all(d.converged for d in found)


@pytest.mark.parametrize(
    ("method", "where"), [*((m, "decode") for m in METHODS), ("text", "encode")]
)
def test_an_image_that_goes_to_nan_is_rejected_and_its_neighbours_are_untouched(
    linear: Any, grid: Grid, item: Any, mark: float, method: str, where: str
) -> None:
    items = [item(i) for i in range(3)]
    clean, _ = discover(linear, grid, items, method)
    items[1].inverted.states_LYX[grid.timestep(NODE)][0, 0, 0] = mark
    linear.broken_in = where
    found, failures = discover(linear, grid, items, method)
    assert [(f.index, f.kind) for f in failures] == [(1, "not_finite")]
    assert [[d.id for d in ds] for ds in found] == [[d.id for d in clean[i]] for i in (0, 2)]
