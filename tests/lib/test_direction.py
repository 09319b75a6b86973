"""The algebra of directions against plain linear algebra."""

import pytest
import torch

from lib.direction import Direction, combined, content_id, negated, projected_out, stored
from lib.direction_table import from_table, to_table


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


def test_sums_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in space, layer, model"):
        combined([direction(1), direction(2, model="other")], [1, 1])
    with pytest.raises(ValueError, match="is zero"):
        combined([direction(1), direction(1)], [1, -1])
