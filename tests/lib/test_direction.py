"""The algebra of directions against plain linear algebra."""

from dataclasses import replace

import pytest
import torch

from lib.direction import Direction, combined, content_id, negated, projected_out, stored
from lib.directions.direction_table import from_table, to_table


def direction(seed: int, model: str = "m") -> Direction:
    noise_SCYX = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(seed))
    vector_SCYX = stored(noise_SCYX, "float16")
    return Direction(
        vector_SCYX=vector_SCYX,
        id=content_id(vector_SCYX, "h", "after", model, (349,)),
        space="h",
        h_layer="after",
        model=model,
        timesteps=(349,),
        method="jacobian",
        parameters={"directions": 1},
        region="eyes",
        mask_sha256="a" * 64,
        shard="s",
        index=seed,
        key=f"k{seed}",
        rank=0,
        singular_value=2.0,
        gap=0.5,
        residual=0.01,
        angle=0.02,
        converged=True,
        jvp_count=3,
        vjp_count=4,
        sign_rule="brightens",
        h_norm=10.0,
    )


def test_a_table_gives_back_exactly_what_was_put_in() -> None:
    before = [direction(1), direction(2)]
    after = list(from_table(to_table(before, "float16")))
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old.vector_SCYX, new.vector_SCYX)
        assert old.id == new.id == content_id(new.vector_SCYX, "h", "after", "m", (349,))
        assert (old.parameters, old.timesteps, old.key) == (new.parameters, new.timesteps, new.key)


def test_negation_and_sum_are_unit_vectors_with_parents() -> None:
    a, b = direction(1), direction(2)
    assert torch.equal(negated(negated(a)).vector_SCYX, stored(a.vector_SCYX, "float32"))
    total = combined([a, b], [2.0, -1.0])
    expected = 2 * a.vector_SCYX - b.vector_SCYX
    torch.testing.assert_close(total.vector_SCYX, expected / expected.norm())
    assert total.parents == (a.id, b.id)


def test_projecting_out_leaves_nothing_along_the_removed() -> None:
    a, b, c = direction(1), direction(2), direction(3)
    left = projected_out(a, [b, c]).vector_SCYX.flatten()
    assert abs(float(left @ b.vector_SCYX.flatten())) < 1e-6
    assert abs(float(left @ c.vector_SCYX.flatten())) < 1e-6
    with pytest.raises(ValueError, match="lies in the span"):
        projected_out(a, [a])


def stepwise(seed: int, steps: int = 3) -> Direction:
    noise_SCYX = torch.randn(steps, 4, 2, 2, generator=torch.Generator().manual_seed(seed))
    return replace(
        direction(seed),
        vector_SCYX=stored(noise_SCYX, "float32"),
        timesteps=tuple(900 - 100 * s for s in range(steps)),
    )


def test_projecting_out_is_exact_at_every_step_and_for_the_flattened_vectors() -> None:
    a, b, c = stepwise(1), stepwise(2), direction(3)
    left_SD = projected_out(a, [b, c]).vector_SCYX.flatten(1)
    torch.testing.assert_close(left_SD.norm(dim=1), torch.ones(3))
    b_SD, c_SD = b.vector_SCYX.flatten(1), c.vector_SCYX.flatten(1)
    assert float((left_SD * b_SD).sum(1).abs().max()) < 1e-6
    assert float((left_SD * c_SD).sum(1).abs().max()) < 1e-6
    assert abs(float((left_SD * b_SD).sum())) < 1e-6
    for step in range(3):
        away_DK = torch.stack([b_SD[step], c_SD[0]], dim=1)
        v_D = a.vector_SCYX[step].flatten()
        rest_D = v_D - away_DK @ torch.linalg.lstsq(away_DK, v_D[:, None]).solution[:, 0]
        torch.testing.assert_close(left_SD[step], rest_D / rest_D.norm(), rtol=0, atol=1e-5)


def test_a_direction_for_all_steps_loses_every_step_of_the_removed() -> None:
    left_D = projected_out(direction(1), [stepwise(2)]).vector_SCYX.flatten()
    assert float((stepwise(2).vector_SCYX.flatten(1) @ left_D).abs().max()) < 1e-6


def test_a_step_with_nothing_left_is_named_and_foreign_directions_are_refused() -> None:
    a, b = stepwise(1), stepwise(2)
    same_SCYX = torch.cat([b.vector_SCYX[:1], a.vector_SCYX[1:2], b.vector_SCYX[2:]])
    with pytest.raises(ValueError, match=r"lies in the span .* at timestep 800"):
        projected_out(a, [replace(b, vector_SCYX=same_SCYX)])
    with pytest.raises(ValueError, match="differ in space, layer, model or timesteps"):
        projected_out(a, [replace(b, timesteps=(900, 800, 600))])
    with pytest.raises(ValueError, match="differ in space, layer, model or timesteps"):
        projected_out(a, [replace(b, model="other")])


def test_sums_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in space, layer, model"):
        combined([direction(1), direction(2, model="other")], [1, 1])
    with pytest.raises(ValueError, match="is zero"):
        combined([direction(1), direction(1)], [1, -1])
