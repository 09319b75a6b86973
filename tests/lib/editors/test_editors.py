"""Learned editors as modules and as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.nn.functional import group_norm, linear, silu

from lib.directions.asyrp import DirectionFunction, read_asyrp
from lib.editors.delta_block import DeltaBlock
from lib.editors.editor_files import encode_editor, find_editor, read_editor
from lib.editors.editor_record import DIRECTION, FUNCTION, EditorRecord
from lib.editors.editor_table import editor_url, read_editor_rows, write_editor_rows
from lib.editors.loading import learned_direction
from lib.editors.step_shifts import StepShifts
from lib.models.time_embedding import TimeEmbedding
from lib.problems import ConfigProblem

RECORD = EditorRecord(
    id="0123456789abcdef", type=DIRECTION, label="smile", region="mouth", purpose="editing",
    method="asyrp", model="f" * 64, h_layer="after", timesteps=(700, 300), window=(900, 200),
    h_norms=(2.0, 4.0), lengths=(0.5, 0.25), unit_strength=1.0, shape=(2, 4, 2, 2),
    architecture={}, parameters={"seed": 0}, data_sha256="d" * 64, images=9, steps=3,
    losses={"total": (1.0, 0.5)}, fingerprint="e" * 64,
)  # fmt: skip


def time(width: int) -> TimeEmbedding:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.1

    return TimeEmbedding(False, 1, drawn(width, 8), drawn(width), drawn(width, width), drawn(width))


def test_a_published_file_gives_the_published_formula_and_loads_into_what_is_trained_here(
    tmp_path: Path,
) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "conv1.weight": (512, 512, 1, 1), "conv1.bias": (512,),
        "temb_proj.weight": (512, 512), "temb_proj.bias": (512,),
        "norm2.weight": (512,), "norm2.bias": (512,),
        "conv2.weight": (512, 512, 1, 1), "conv2.bias": (512,),
    }  # fmt: skip
    state = {n: torch.randn(*s, generator=generator) * 0.05 for n, s in shapes.items()}
    torch.save({"0": state, "optimizer": {"lr": 0.5}}, tmp_path / "smile.pth")
    embedding = time(512)
    function = read_asyrp(str(tmp_path / "smile.pth"), embedding)
    assert isinstance(function, DirectionFunction)
    h_BCYX = torch.randn(2, 512, 8, 8, generator=generator)

    def conv(x_BCYX: Tensor, name: str) -> Tensor:
        weight_OI = state[f"{name}.weight"][:, :, 0, 0]
        return torch.einsum("oi,biyx->boyx", weight_OI, x_BCYX) + state[f"{name}.bias"].view(
            1, -1, 1, 1
        )

    for t in (700, 20):
        temb = linear(silu(embedding.at(t)), state["temb_proj.weight"], state["temb_proj.bias"])
        a_BCYX = conv(h_BCYX, "conv1") + temb[:, :, None, None]
        b_BCYX = group_norm(a_BCYX, 32, state["norm2.weight"], state["norm2.bias"], 1e-6)
        wanted_BCYX = conv(silu(b_BCYX), "conv2")
        torch.testing.assert_close(function.apply(h_BCYX, t), wanted_BCYX, rtol=1e-4, atol=1e-4)
        block = DeltaBlock(512, embedding)
        assert not bool(block(h_BCYX, torch.tensor([t, t])).any())  # not trained yet
        block.load_state_dict(state)
        torch.testing.assert_close(
            block(h_BCYX, torch.tensor([t, t])), wanted_BCYX, rtol=1e-4, atol=1e-4
        )


def test_a_width_that_the_groups_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigProblem, match="multiple of 32"):
        DeltaBlock(48, time(16))


def test_the_step_nearest_to_a_timestep_is_shifted_in_units_of_h() -> None:
    shifts = StepShifts((700, 300), (2.0, 8.0), (4, 2, 2))
    with torch.no_grad():
        shifts.steps_SCYX[0], shifts.steps_SCYX[1] = 1.0, 2.0
    found = shifts(torch.zeros(3, 4, 2, 2), torch.tensor([999, 480, 0]))
    # The root mean square of an entry of h is its norm / 4, with 16 entries.
    assert found[:, 0, 0, 0].tolist() == pytest.approx([0.5, 4.0, 4.0])
    with pytest.raises(ValueError, match="expected h"):
        shifts(torch.zeros(1, 5, 2, 2), torch.tensor([1]))


def test_a_file_holds_record_and_tensors_and_is_the_same_twice(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(2, 3).half(), "a": torch.arange(4.0)}
    data = encode_editor(RECORD, tensors)
    assert data == encode_editor(RECORD, dict(reversed(tensors.items())))
    (tmp_path / "e.safetensors").write_bytes(data)
    record, found = read_editor(str(tmp_path / "e.safetensors"))
    assert record == RECORD
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_a_table_gives_back_what_was_written(tmp_path: Path) -> None:
    other = replace(RECORD, id="1" * 16, label="eyes", type=FUNCTION, shape=(4, 2, 2))
    write_editor_rows(str(tmp_path), [RECORD, other])
    assert read_editor_rows(str(tmp_path)) == (other, RECORD)
    assert read_editor_rows(str(tmp_path / "nowhere")) == ()


def test_what_is_no_editor_or_not_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path)
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ConfigProblem, match="deltah wrote"):
        read_editor(str(tmp_path / "foreign.safetensors"))
    nan = encode_editor(RECORD, {"a": torch.tensor([float("nan")])})
    (tmp_path / "nan.safetensors").write_bytes(nan)
    with pytest.raises(ConfigProblem, match="NaN"):
        read_editor(str(tmp_path / "nan.safetensors"))
    with pytest.raises(ConfigProblem, match="found none"):
        find_editor(root, DIRECTION, RECORD.model, "editor.start")
    write_editor_rows(root, [RECORD])
    path = Path(editor_url(root, RECORD.id))
    path.parent.mkdir()
    path.write_bytes(encode_editor(RECORD, {"delta_h": torch.ones(2, 4, 2, 2)}))
    assert find_editor(root, DIRECTION, RECORD.model, "editor.start")[0] == RECORD
    with pytest.raises(ConfigProblem, match="is of model ffffffffffff"):
        find_editor(root, DIRECTION, "a" * 64, "editor.start")
    with pytest.raises(ConfigProblem, match="expected a direction_fn"):
        find_editor(str(path), FUNCTION, RECORD.model, "editor.start")
    write_editor_rows(root, [RECORD, replace(RECORD, id="2" * 16)])
    with pytest.raises(ConfigProblem, match="name its file"):
        find_editor(root, DIRECTION, RECORD.model, "editor.start")


def test_a_learned_direction_has_unit_steps_and_keeps_their_lengths() -> None:
    delta_SCYX = torch.zeros(2, 4, 2, 2)
    delta_SCYX[0, 0, 0, 0] = 1.0
    direction = learned_direction(RECORD, delta_SCYX, -1)
    assert direction.vector_SCYX.flatten(1).norm(dim=1).tolist() == pytest.approx([1.0, 1.0])
    assert (direction.lengths, direction.id, direction.rank) == (RECORD.lengths, RECORD.id, -1)
    with pytest.raises(ConfigProblem, match="train it longer"):
        learned_direction(RECORD, torch.zeros(2, 4, 2, 2), -1)
    with pytest.raises(ConfigProblem, match="expected delta h"):
        learned_direction(RECORD, torch.ones(3, 4, 2, 2), -1)
