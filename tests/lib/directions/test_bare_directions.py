"""Tensors as other programs save them: what each layout means, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lib.direction import WHOLE, Direction
from lib.directions.bare_directions import Placement, import_bare
from lib.directions.direction_files import export_directions, import_directions
from lib.directions.direction_table import from_table, to_table
from lib.problems import ConfigProblem

SHAPE = (4, 2, 3)
D = 24
H = Placement("m" * 64, "h", "after", SHAPE, h_norm=9.0)
X = replace(H, space="x", h_norm=24**0.5)


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def unit(rows_ND: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows_ND.double(), dim=1).float()


def imported(
    folder: Path, content: Any, *timesteps: int, placement: Placement = H, tensor: str = ""
) -> tuple[Direction, ...]:
    path = folder / "d.pt"
    torch.save(content, path)
    return import_bare(str(path), placement, timesteps or (500,), tensor=tensor)


def rows(found: tuple[Direction, ...]) -> torch.Tensor:
    return torch.stack([d.vector_SCYX.flatten() for d in found])


def test_one_map_is_one_direction_for_every_timestep(tmp_path: Path) -> None:
    (found,) = imported(tmp_path, 5 * values(*SHAPE))
    torch.testing.assert_close(rows((found,)), unit(values(1, D)))
    assert found.vector_SCYX.shape == (1, *SHAPE)
    assert found.singular_value == pytest.approx(5 * float(values(1, D).norm()))
    assert (found.method, found.sign_rule, found.region) == ("imported", "as_published", WHOLE)
    assert (found.timesteps, found.h_norm, found.shard, found.index) == ((500,), 9.0, None, None)


def test_a_stack_is_steps_or_directions_by_the_number_of_timesteps(tmp_path: Path) -> None:
    stack = values(3, *SHAPE)
    several = imported(tmp_path, stack)
    assert [d.rank for d in several] == [0, 1, 2]
    torch.testing.assert_close(rows(several), unit(stack.flatten(1)))
    (stepped,) = imported(tmp_path, stack, 900, 600, 300)
    assert stepped.timesteps == (900, 600, 300)
    torch.testing.assert_close(stepped.vector_SCYX.flatten(1), unit(stack.flatten(1)))
    both = imported(tmp_path, values(2, 3, *SHAPE), 900, 600, 300)
    assert [tuple(d.vector_SCYX.shape) for d in both] == [(3, *SHAPE)] * 2


@pytest.mark.parametrize("shape", [(2, D), (2, *SHAPE), (2, 1, *SHAPE)])
def test_a_basis_of_x_is_read_by_rows(shape: tuple[int, ...], tmp_path: Path) -> None:
    content = {"u": values(D, 2, seed=1), "s": values(2), "vT": values(*shape)}
    found = imported(tmp_path, content, placement=X)
    torch.testing.assert_close(rows(found), unit(values(2, D)))
    assert found[0].space == "x"
    assert found[0].parameters["tensor"] == "vT"


def test_columns_of_u_in_h_also_where_the_basis_is_square(tmp_path: Path) -> None:
    for count in (2, D):
        u_DN = values(D, count, seed=1)
        found = imported(tmp_path, {"u": u_DN, "vT": values(count, D)})
        torch.testing.assert_close(rows(found), unit(u_DN.T))
    torch.testing.assert_close(rows(imported(tmp_path, {"v": u_DN})), unit(u_DN))


def test_safetensors_lists_half_precision_and_gradients_are_read(tmp_path: Path) -> None:
    save_file({"v": values(*SHAPE).half()}, tmp_path / "d.safetensors")
    (half,) = import_bare(str(tmp_path / "d.safetensors"), H, (500,))
    torch.testing.assert_close(rows((half,)), unit(values(1, D).half()))
    assert half.vector_SCYX.dtype == torch.float32
    listed = imported(tmp_path, [values(*SHAPE), values(*SHAPE, seed=1)])
    assert len(listed) == 2
    (parameter,) = imported(tmp_path, torch.nn.Parameter(values(*SHAPE)))
    assert not parameter.vector_SCYX.requires_grad


def test_what_was_imported_is_stored_and_exported_like_any_other(tmp_path: Path) -> None:
    found = imported(tmp_path, values(2, *SHAPE))
    again = list(from_table(to_table(found, "float32")))
    export_directions(found, str(tmp_path / "again.safetensors"))
    for one, two, three in zip(
        found, again, import_directions(str(tmp_path / "again.safetensors")), strict=True
    ):
        assert torch.equal(one.vector_SCYX, two.vector_SCYX)
        assert torch.equal(one.vector_SCYX, three.vector_SCYX)
        assert one.id == two.id == three.id
        assert one.parameters == three.parameters


def test_very_short_vectors_keep_their_direction(tmp_path: Path) -> None:
    (found,) = imported(tmp_path, 1e-30 * values(*SHAPE))
    torch.testing.assert_close(rows((found,)), unit(values(1, D)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (values(4, 3, 2), r"expected \(C, Y, X\) = \(4, 2, 3\)"),
        (values(25), "rows or columns of 24"),
        (values(0, *SHAPE), r"got \(0, 4, 2, 3\)"),
        (torch.ones(SHAPE, dtype=torch.int64), "floating-point"),
        (torch.zeros(SHAPE), "is zero"),
        (torch.full(SHAPE, float("nan")), "finite values"),
        (torch.full(SHAPE, float("inf")), "finite values"),
        ({"a": values(*SHAPE), "b": values(*SHAPE)}, "name the one"),
        ({"steps": 3}, "expected one tensor, found 0"),
        ([values(*SHAPE), values(3)], "expected one tensor"),
        ("text", "expected one tensor"),
    ],
)
def test_unusable_content_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match=message):
        imported(tmp_path, content)


def test_unusable_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigProblem, match="2 steps a direction"):
        imported(tmp_path, values(3, *SHAPE), 900, 300)
    with pytest.raises(ConfigProblem, match="without repetition"):
        imported(tmp_path, values(2, *SHAPE), 300, 300)
    with pytest.raises(ConfigProblem, match="space h or x"):
        imported(tmp_path, values(*SHAPE), placement=replace(H, space="w"))
    with pytest.raises(ConfigProblem, match="positive norm"):
        imported(tmp_path, values(*SHAPE), placement=replace(H, h_norm=float("nan")))
    with pytest.raises(ConfigProblem, match="expected a tensor 'w', found"):
        imported(tmp_path, {"v": values(*SHAPE)}, tensor="w")
    with pytest.raises(ConfigProblem, match=r"expected a \.safetensors or"):
        import_bare(str(tmp_path / "d.npy"), H, (500,))


@pytest.mark.parametrize("name", ["export.pt", "export.safetensors"])
def test_an_export_is_not_taken_for_bare_tensors(name: str, tmp_path: Path) -> None:
    export_directions(imported(tmp_path, values(*SHAPE)), str(tmp_path / name))
    with pytest.raises(ConfigProblem, match="carry their metadata"):
        import_bare(str(tmp_path / name), H, (500,))
