"""Files in Asyrp's formats, and f_t against networks built from torch's own modules."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lib.directions.asyrp import DirectionFunction, StepDeltas, read_asyrp
from lib.directions.asyrp_baking import baked, step_direction
from lib.directions.bare_directions import Placement
from lib.directions.direction_table import from_table, to_table
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.models.time_embedding import TimeEmbedding, load_time_embedding
from lib.problems import ConfigProblem

SHAPE = (32, 4, 4)
PLACEMENT = Placement("m" * 64, "h", "after", SHAPE, h_norm=9.0, label="smiling")


class FaceBlock(nn.Module):
    """The network of the CelebA-HQ and LSUN files, under their names."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.temb_proj = nn.Linear(width, channels)
        self.norm2 = nn.GroupNorm(32, channels, eps=1e-6)
        self.conv2 = nn.Conv2d(channels, channels, 1)

    def forward(self, h: torch.Tensor, temb: torch.Tensor | None) -> torch.Tensor:
        a = self.conv1(h)
        if temb is not None:
            a = a + self.temb_proj(nn.SiLU()(temb)).unflatten(1, (-1, 1, 1))
        return self.conv2(nn.SiLU()(self.norm2(a)))


class DogBlock(nn.Module):
    """The network of the AFHQ and MetFaces files, under their names."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, channels), nn.SiLU(), nn.Conv2d(channels, channels, 1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, channels))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(32, channels),
            nn.SiLU(),
            nn.Dropout(0.0),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, h: torch.Tensor, temb: torch.Tensor | None) -> torch.Tensor:
        a = self.in_layers(h)
        if temb is not None:
            a = a + self.emb_layers(temb).unflatten(1, (-1, 1, 1))
        return self.out_layers(a)


@pytest.fixture(scope="module")
def time(tiny_checkpoint: Path) -> TimeEmbedding:
    return load_time_embedding(open_checkpoint(str(tiny_checkpoint)))


def wide() -> TimeEmbedding:
    """As large as CelebA-HQ's: 128 sinusoids, 512 entries."""
    first, second = torch.randn(512, 128) / 12, torch.randn(512, 512) / 23
    return TimeEmbedding(False, 1, first, torch.zeros(512), second, torch.zeros(512))


def built(kind: type[nn.Module], channels: int, width: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    block = kind(channels, width)
    for name, value in block.named_parameters():
        nn.init.normal_(value, mean=float("norm" in name), std=0.3)
    return block.eval()


def write(path: Path, *blocks: nn.Module) -> str:
    """As Asyrp's training saves: one state a network, then optimizer and scheduler."""
    content: dict[str, Any] = {str(i): block.state_dict() for i, block in enumerate(blocks)}
    optimizer = torch.optim.SGD(blocks[0].parameters(), lr=0.5)
    content["optimizer"] = optimizer.state_dict()
    content["scheduler"] = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.1).state_dict()
    torch.save(content, path)
    return str(path)


def function(url: str, time: TimeEmbedding, **options: Any) -> DirectionFunction:
    found = read_asyrp(url, time, **options)
    assert isinstance(found, DirectionFunction)
    return found


def h_at(timesteps: tuple[int, ...], count: int = 5) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {t: torch.randn(count, *SHAPE, generator=generator) for t in timesteps}


@pytest.mark.parametrize("kind", [FaceBlock, DogBlock])
@pytest.mark.parametrize("ignores_time", [False, True])
@torch.no_grad()
def test_the_function_is_the_network_of_the_file(
    kind: type[nn.Module], ignores_time: bool, time: TimeEmbedding, tmp_path: Path
) -> None:
    block = built(kind, 32, time.width)
    f = function(write(tmp_path / "smiling.pth", block), time, ignores_time=ignores_time)
    h_BCYX = h_at((500,))[500]
    for t in (500, 999):
        expected = block(h_BCYX, None if ignores_time else time.at(t))
        torch.testing.assert_close(f.apply(h_BCYX, t), expected, rtol=1e-5, atol=1e-5)
    changed = float((f.apply(h_BCYX, 500) - f.apply(h_BCYX, 999)).abs().max())
    assert (changed == 0) == ignores_time
    assert (f.source, f.channels) == ("smiling.pth", 32)


@torch.no_grad()
def test_a_file_of_the_published_size_is_read(tmp_path: Path) -> None:
    time = wide()
    block = built(FaceBlock, 512, 512)
    url = write(tmp_path / "smiling_LC_CelebA_HQ_t999_ninv40_ngen40_0.pth", block)
    assert 3.1e6 < Path(url).stat().st_size < 3.2e6, "the published files have 3.16 MB"
    h_BCYX = torch.randn(2, 512, 8, 8)
    delta = function(url, time).apply(h_BCYX, 700)
    torch.testing.assert_close(delta, block(h_BCYX, time.at(700)), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_one_of_several_networks_is_chosen(time: TimeEmbedding, tmp_path: Path) -> None:
    blocks = [built(FaceBlock, 32, time.width, seed=s) for s in (0, 1)]
    url = write(tmp_path / "two.pth", *blocks)
    h_BCYX = h_at((500,))[500]
    second = function(url, time, block="1").apply(h_BCYX, 500)
    torch.testing.assert_close(second, blocks[1](h_BCYX, time.at(500)))
    with pytest.raises(ConfigProblem, match=r"network '2', found \['0', '1'\]"):
        read_asyrp(url, time, block="2")


@torch.no_grad()
def test_baking_averages_over_images_and_over_time(time: TimeEmbedding, tmp_path: Path) -> None:
    block = built(FaceBlock, 32, time.width)
    f = function(write(tmp_path / "f.pth", block), time)
    h = h_at((400, 900, 600))
    direction = baked(f, h, PLACEMENT)
    assert direction.timesteps == (900, 600, 400)
    assert direction.window == (900, 400)
    assert (direction.method, direction.support, direction.label) == ("asyrp", 5, "smiling")
    deltas = {t: block(h[t], time.at(t)) for t in direction.timesteps}
    means_SCYX = torch.stack([d.mean(0) for d in deltas.values()])
    for step, mean_CYX in zip(direction.vector_SCYX, means_SCYX, strict=True):
        torch.testing.assert_close(step, mean_CYX / mean_CYX.norm(), rtol=1e-4, atol=1e-5)
    norms = means_SCYX.flatten(1).norm(dim=1).tolist()
    assert direction.parameters["norms"] == pytest.approx(norms, rel=1e-4)
    sines = [
        torch.sin(torch.acos(torch.cosine_similarity(d.flatten(1), m.flatten()[None])))
        for d, m in zip(deltas.values(), means_SCYX, strict=True)
    ]
    assert direction.spread == pytest.approx(float(torch.stack(sines).mean()), rel=1e-3)
    everywhere = baked(f, h, PLACEMENT, per_step=False)
    mean_CYX = means_SCYX.mean(0)
    torch.testing.assert_close(
        everywhere.vector_SCYX[0], mean_CYX / mean_CYX.norm(), rtol=1e-4, atol=1e-5
    )
    assert (everywhere.timesteps, everywhere.window) == ((900,), (900, 400))
    again = next(iter(from_table(to_table([direction], "float32"))))
    assert torch.equal(again.vector_SCYX, direction.vector_SCYX)
    assert again.id == direction.id


@torch.no_grad()
def test_a_function_on_a_real_networks_h_bakes(
    tiny_checkpoint: Path, time: TimeEmbedding, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    denoiser = load_denoiser(checkpoint, torch.device("cpu"), "after")
    x_BLYX = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    h = {t: denoiser.encode(x_BLYX, t).h_BCYX for t in (900, 500)}
    placement = Placement("m", "h", "after", denoiser.h_shape, h_norm=float(h[900].norm()))
    f = function(write(tmp_path / "f.pth", built(FaceBlock, 32, time.width)), time)
    direction = baked(f, h, placement)
    assert direction.vector_SCYX.shape == (2, *denoiser.h_shape)
    first = denoiser.predict_shifted(x_BLYX, 900, direction.vector_SCYX[:1])
    assert not torch.equal(first, denoiser.predict(x_BLYX, 900))


def test_tensors_per_timestep_are_read_as_training_saves_them(
    time: TimeEmbedding, tmp_path: Path
) -> None:
    maps = {t: torch.randn(SHAPE) for t in (513, 769, 999)}
    content: dict[str, Any] = {str(t): nn.Parameter(v) for t, v in maps.items()}
    torch.save(content | {"optimizer": {"state": {}}, "scheduler": {}}, tmp_path / "d.pth")
    found = read_asyrp(str(tmp_path / "d.pth"), time)
    assert isinstance(found, StepDeltas)
    assert (list(found.steps), found.everywhere) == ([999, 769, 513], None)
    direction = step_direction(found, PLACEMENT)
    assert (direction.timesteps, direction.window) == ((999, 769, 513), (999, 513))
    torch.testing.assert_close(direction.vector_SCYX[1], maps[769] / maps[769].norm())
    mean_CYX = torch.stack(list(maps.values())).mean(0)
    one = step_direction(found, PLACEMENT, per_step=False)
    torch.testing.assert_close(one.vector_SCYX[0], mean_CYX / mean_CYX.norm())


def test_means_with_gaps_and_a_global_tensor_are_read(time: TimeEmbedding, tmp_path: Path) -> None:
    content: dict[int, Any] = {t: torch.randn(1, *SHAPE) for t in (999, 769)}
    content |= {256: None, 512: None, 0: torch.ones(1, *SHAPE)}
    torch.save(content, tmp_path / "mean.pth")
    found = read_asyrp(str(tmp_path / "mean.pth"), time)
    assert isinstance(found, StepDeltas)
    assert list(found.steps) == [999, 769]
    one = step_direction(found, PLACEMENT, per_step=False)
    torch.testing.assert_close(one.vector_SCYX, torch.full((1, *SHAPE), 512**-0.5))
    assert (one.timesteps, one.window) == ((999,), (999, 769))


def test_a_tensor_for_every_timestep_alone_is_a_global_direction(
    time: TimeEmbedding, tmp_path: Path
) -> None:
    torch.save({"999": None, "0": torch.ones(SHAPE)}, tmp_path / "d.pth")
    found = read_asyrp(str(tmp_path / "d.pth"), time)
    assert isinstance(found, StepDeltas)
    one = step_direction(found, PLACEMENT, per_step=False, top=900)
    assert (one.timesteps, one.window) == ((900,), None)
    with pytest.raises(ConfigProblem, match="global direction"):
        step_direction(found, PLACEMENT)


def states(**change: Any) -> dict[str, Any]:
    return {"0": dict(built(FaceBlock, 32, 64).state_dict(), **change)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0": built(FaceBlock, 32, 128).state_dict()}, "time embedding of this model: 64"),
        ({"0": nn.Linear(3, 3).state_dict()}, "weights of Asyrp's DeltaBlock"),
        (states(clip_proj=torch.ones(3)), r"odd: \['clip_proj'\]"),
        (states(**{"conv1.bias": torch.full((32,), float("nan"))}), "finite weights"),
        (states(**{"conv2.weight": torch.ones(32, 16, 1, 1)}), r"conv2\.weight of shape"),
        (states(**{"conv2.bias": torch.ones(33)}), "multiple of 32"),
        ({"weird": torch.ones(3)}, "expected a direction file of Asyrp"),
        (torch.ones(3), "got Tensor"),
        ({"optimizer": {}}, "expected a direction file of Asyrp"),
        ({"999": torch.ones(SHAPE), "500": torch.ones(2, 2)}, "of one shape"),
        ({"999": torch.full(SHAPE, float("nan"))}, "finite values"),
    ],
)
def test_other_files_are_refused(
    content: Any, message: str, time: TimeEmbedding, tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(ConfigProblem, match=message):
        read_asyrp(str(tmp_path / "f.pth"), time)


def test_pickled_code_is_refused(time: TimeEmbedding, tmp_path: Path) -> None:
    torch.save(built(FaceBlock, 32, 64), tmp_path / "module.pth")
    with pytest.raises(ConfigProblem, match="could run code"):
        read_asyrp(str(tmp_path / "module.pth"), time)


def test_what_does_not_fit_the_model_is_refused(time: TimeEmbedding, tmp_path: Path) -> None:
    f = function(write(tmp_path / "f.pth", built(FaceBlock, 32, time.width)), time)
    other = Placement("m", "h", "after", (64, 4, 4), h_norm=1.0)
    with pytest.raises(ConfigProblem, match=r"expected delta h \(64, 4, 4\)"):
        baked(f, h_at((500,)), other)
    before = Placement("m", "h", "before", SHAPE, h_norm=1.0)
    with pytest.raises(ConfigProblem, match="h_layer after"):
        baked(f, h_at((500,)), before)
    with pytest.raises(ValueError, match="same images"):
        baked(f, h_at((500,), 2) | h_at((600,), 3), PLACEMENT)
    with pytest.raises(ValueError, match="same images"):
        baked(f, {}, PLACEMENT)
    with pytest.raises(ValueError, match="finite h"):
        baked(f, {500: torch.full((1, *SHAPE), float("nan"))}, PLACEMENT)
    with pytest.raises(ValueError, match="expected h"):
        f.apply(torch.zeros(1, 16, 4, 4), 500)
