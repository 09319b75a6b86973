"""Learned editors made ready, against the tensors that were learned and the network's own pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lib.direction import Direction
from lib.editing.edit_shifts import EditShifts
from lib.editors.delta_block import DeltaBlock
from lib.editors.editor_record import EditorRecord
from lib.editors.learned_editor import LearnedEditor
from lib.editors.loading import learned_direction, load_editor
from lib.editors.tuned_network import Tuning, tunable_copy, tuned_weights
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import Checkpoint, open_checkpoint
from lib.models.conditioning import Conditioning
from lib.models.time_embedding import load_time_embedding
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ConfigProblem
from lib.rectifier.hypernetwork import Rectifier, RectifierOptions
from lib.rectifier.rectified import rectified_noise
from lib.sampling.grid import make_grid
from lib.shift import Shift

Record = Callable[..., EditorRecord]
CPU = torch.device("cpu")
LENGTHS = (0.25, 0.5, 0.125)
T = 300


def free_delta(record: Record, **changes: Any) -> tuple[EditorRecord, Tensor]:
    made = record(
        type="direction", shape=(3, 4, 2, 3), lengths=LENGTHS, **{"architecture": {}} | changes
    )
    delta_SCYX = torch.randn(3, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    norms_S = torch.tensor([a * b for a, b in zip(made.lengths, made.h_norms, strict=True)])
    scale_S = norms_S / delta_SCYX.flatten(1).norm(dim=1)
    return made, delta_SCYX * scale_S[:, None, None, None]


def test_a_direction_keeps_the_lengths_of_its_steps_beside_unit_vectors(record: Record) -> None:
    made, delta_SCYX = free_delta(record)
    direction = learned_direction(made, delta_SCYX, 2)
    assert direction.lengths == LENGTHS
    assert direction.vector_SCYX.flatten(1).norm(dim=1).tolist() == pytest.approx([1, 1, 1])
    assert (direction.space, direction.rank, direction.label) == ("h", 2, "smile ü")
    assert (direction.timesteps, direction.window) == ((900, 600, 300), (950, 250))
    assert direction.id == made.id
    for step, (length, h_norm) in enumerate(zip(LENGTHS, made.h_norms, strict=True)):
        whole_CYX = length * h_norm * direction.vector_SCYX[step]
        torch.testing.assert_close(whole_CYX, delta_SCYX[step], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("injection", ["symmetric", "asymmetric"])
def test_at_its_own_timesteps_and_unit_an_edit_shifts_h_by_what_was_learned(
    record: Record, injection: str
) -> None:
    made, delta_SCYX = free_delta(record, unit_strength=1.0)
    direction = learned_direction(made, delta_SCYX, 0)
    grid = make_grid({"num_train_timesteps": 1200}, 12, "leading")  # 0, 100, ... 1100
    unit = dict.fromkeys(grid.timesteps, 7.0) | dict(zip(made.timesteps, made.h_norms, strict=True))
    shifts = EditShifts(grid, (1000, 100), injection, "window", unit, (4, 2, 3), (1, 2, 3))
    (plain,) = [Shift(_even(direction), 1.0)]
    rows = [Shift(direction, 1.0), Shift(direction, -2.0), None, plain]
    for step, t in enumerate(made.timesteps):
        node = grid.nearest_node(t)
        found = shifts.of_h(rows, node)
        # The window's weight is what a direction without lengths gets of its unit vector.
        weight = float(found[3].norm()) / made.h_norms[step]
        assert weight > 0
        expected_CYX = weight * delta_SCYX[step]
        torch.testing.assert_close(found[0], expected_CYX, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], -2 * expected_CYX, rtol=1e-4, atol=1e-5)
        assert not found[2].any()
    beside = shifts.of_h(rows, grid.nearest_node(700))[0]
    torch.testing.assert_close(beside / beside.norm(), direction.vector_SCYX[1])
    ratio = float(beside.norm()) / float(shifts.of_h(rows, grid.nearest_node(700))[3].norm())
    assert ratio == pytest.approx(LENGTHS[1], rel=1e-4), "the nearest step, 600, has length 0.5"


def _even(direction: Direction) -> Direction:
    import dataclasses

    return dataclasses.replace(direction, lengths=())


def test_nothing_but_zero_and_another_shape_are_refused(record: Record) -> None:
    made, delta_SCYX = free_delta(record)
    with pytest.raises(ConfigProblem, match=r"delta h is zero; train it longer"):
        learned_direction(made, 0 * delta_SCYX, 0)
    with pytest.raises(ConfigProblem, match=r"expected delta h \(3, 4, 2, 3\), got \(2, 4, 2, 3\)"):
        learned_direction(made, delta_SCYX[:2], 0)


@pytest.fixture(scope="module", name="checkpoint")
def opened(tiny_checkpoint: Path) -> Checkpoint:
    return open_checkpoint(str(tiny_checkpoint))


@pytest.fixture(name="denoiser")
def frozen(checkpoint: Checkpoint) -> UNetDenoiser:
    denoiser = load_denoiser(checkpoint, CPU, "after")
    assert isinstance(denoiser, UNetDenoiser)
    return denoiser


@pytest.fixture(name="x_BLYX")
def noisy() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def loaded(
    record: EditorRecord, tensors: dict[str, Tensor], denoiser: Any, checkpoint: Checkpoint
) -> LearnedEditor:
    found = load_editor(record, tensors, 1, denoiser, checkpoint)
    assert isinstance(found, LearnedEditor)
    assert (found.rank, found.id, found.type) == (1, record.id, record.type)
    return found


@pytest.mark.parametrize("ignores_time", [False, True])
@torch.no_grad()
def test_a_function_shifts_as_the_block_that_was_trained(
    record: Record, denoiser: UNetDenoiser, checkpoint: Checkpoint, ignores_time: bool
) -> None:
    block = DeltaBlock(32, load_time_embedding(checkpoint), ignores_time=ignores_time)
    for parameter in block.parameters():
        parameter.normal_(std=0.3)
    made = record(architecture={"ignores_time": ignores_time})
    editor = loaded(made, dict(block.state_dict()), denoiser, checkpoint)
    assert (editor.space, editor.source) == ("h", None)
    assert editor.shift is not None
    h_BCYX = torch.randn(2, *denoiser.h_shape)
    expected_BCYX = block(h_BCYX, torch.tensor([T, T]))
    torch.testing.assert_close(editor.shift(h_BCYX, T), expected_BCYX)


@pytest.mark.parametrize("tuning", [Tuning("whole"), Tuning("lora", rank=2, layers="attention")])
@torch.no_grad()
def test_other_weights_predict_as_the_network_that_was_trained(
    record: Record,
    denoiser: UNetDenoiser,
    checkpoint: Checkpoint,
    x_BLYX: Tensor,
    tuning: Tuning,
) -> None:
    if tuning.kind == "lora":
        pytest.importorskip("peft")
    plain_BLYX = denoiser.predict(x_BLYX, T)
    network = tunable_copy(denoiser.network, tuning)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter += 0.1 * torch.randn_like(parameter)
    artifact = tuned_weights(network, denoiser.network, tuning)
    made = record(type="model_delta", architecture=tuning.to_json(), shape=(), h_norms=())
    editor = loaded(made, artifact, denoiser, checkpoint)
    assert (editor.space, editor.shift) == ("network", None)
    assert editor.source is not None
    assert editor.source.evaluations == made.evaluations == 1
    expected_BLYX = network.eval()(x_BLYX, T).sample
    found_BLYX = editor.source.noise(x_BLYX, T, torch.zeros(3, 16, 16))
    torch.testing.assert_close(found_BLYX, expected_BLYX, rtol=1e-4, atol=1e-4)
    assert (found_BLYX - plain_BLYX).abs().max() > 1e-2
    assert torch.equal(denoiser.predict(x_BLYX, T), plain_BLYX)


@torch.no_grad()
def test_a_rectifier_predicts_as_the_one_that_was_trained(
    record: Record, denoiser: UNetDenoiser, checkpoint: Checkpoint, x_BLYX: Tensor
) -> None:
    options = RectifierOptions(width=8, branch_width=8)
    rectifier = Rectifier(denoiser, options)
    for parameter in rectifier.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    made = record(type="rectifier", architecture=options.to_json(), shape=(), h_norms=())
    editor = loaded(made, dict(rectifier.state_dict()), denoiser, checkpoint)
    assert editor.source is not None
    assert editor.source.evaluations == made.evaluations == 2
    x0_LYX = torch.rand(3, 16, 16)
    t_B, x0_BLYX = torch.tensor([T, T]), x0_LYX.expand(2, -1, -1, -1)
    expected = rectified_noise(denoiser, rectifier, x_BLYX, t_B, x0_BLYX)
    found_BLYX = editor.source.noise(x_BLYX, T, x0_LYX)
    torch.testing.assert_close(found_BLYX, expected.rectified_BLYX, rtol=1e-5, atol=1e-5)
    assert (found_BLYX - expected.plain_BLYX).abs().max() > 1e-3
    broken = {name: value for name, value in rectifier.state_dict().items() if "to_in" not in name}
    with pytest.raises(ConfigProblem, match="rectifier does not fit"):
        load_editor(made, broken, 0, denoiser, checkpoint)


def test_a_guided_network_has_no_editors_of_the_network(
    record: Record, backbone: Callable[[str], Path]
) -> None:
    checkpoint = open_checkpoint(str(backbone("guided")))
    guided = load_denoiser(checkpoint, CPU, "after", Conditioning("a smile face", "", 3.0))
    for kind in ("rectifier", "model_delta"):
        with pytest.raises(ConfigProblem, match=r"guidance_scale: 1"):
            load_editor(record(type=kind), {}, 0, guided, checkpoint)
