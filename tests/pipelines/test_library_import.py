"""Directions that leave a library and enter another one, and those of other programs."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cluster.cli import main
from lib.direction import Direction, content_id, stored
from lib.directions.library_store import read_library_folder, write_library
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint, weights_sha256
from lib.models.time_embedding import load_time_embedding
from lib.problems import ConfigProblem
from lib.sampling.ddim import inversion
from lib.sampling.grid import make_grid
from pipelines.library_import import Origin, import_file

SHAPE = (32, 8, 8)  # h of the tiny checkpoint


def directions(checkpoint: Path, count: int) -> list[Direction]:
    model = weights_sha256(open_checkpoint(str(checkpoint)))
    made = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        vector_SCYX = stored(torch.randn(1, *SHAPE, generator=generator), "float32")
        made.append(
            Direction(
                vector_SCYX=vector_SCYX, id=content_id(vector_SCYX, "h", "after", model, (368,)),
                space="h", h_layer="after", model=model, timesteps=(368,), method="jacobian",
                parameters={"a": 1}, region="left", mask_sha256="", shard="s", index=index,
                key="k", rank=0, singular_value=5.0 - index, gap=None, residual=None, angle=0.1,
                converged=True, jvp_count=1, vjp_count=1, sign_rule="brightens", h_norm=2.0,
            )
        )  # fmt: skip
    return made


def call(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(a) for a in arguments])
    return int(end.value.code or 0)


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_what_is_exported_comes_back_the_same(
    tiny_checkpoint: Path, tmp_path: Path, ending: str
) -> None:
    library, file = tmp_path / "lib", tmp_path / f"some.{ending}"
    made = directions(tiny_checkpoint, 3)
    write_library(str(library), {}, made)
    ids = f"{made[0].id[:6]},{made[2].id}"
    assert call("library", "export", library, "--ids", ids, "--output", file) == 0
    assert call("library", "import", file, "--library", tmp_path / "new") == 0
    found = read_library_folder(str(tmp_path / "new")).directions
    assert [d.id for d in found] == [made[0].id, made[2].id]
    for direction, original in zip(found, (made[0], made[2]), strict=True):
        torch.testing.assert_close(direction.vector_SCYX, original.vector_SCYX)
        assert direction.parameters == original.parameters
    _, new = import_file(str(library), str(file), Origin(), config=None, images=1)
    assert new == 0  # all there already


def test_a_bare_tensor_is_placed_by_what_is_given_with_it(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    tensor_NCYX = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(9))
    save_file({"u": tensor_NCYX}, tmp_path / "u.safetensors")
    library = tmp_path / "lib"
    arguments = ["library", "import", tmp_path / "u.safetensors", "--library", library]
    arguments += ["--format", "tensors", "--model", tiny_checkpoint, "--region", "left"]
    assert call(*arguments) == 2  # without timesteps
    assert not library.exists()
    assert call(*arguments, "--timesteps", "500", "--label", "found") == 0
    found = read_library_folder(str(library)).directions
    assert {(d.timesteps, d.region, d.label) for d in found} == {((500,), "left", "found")}
    for wanted in tensor_NCYX:
        unit_CYX = wanted / wanted.norm()
        assert any(torch.allclose(d.vector_SCYX[0], unit_CYX, atol=1e-6) for d in found)


class FaceBlock(nn.Module):
    """f_t under the names of Asyrp's files."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(SHAPE[0], SHAPE[0], 1)
        self.temb_proj = nn.Linear(width, SHAPE[0])
        self.norm2 = nn.GroupNorm(32, SHAPE[0], eps=1e-6)
        self.conv2 = nn.Conv2d(SHAPE[0], SHAPE[0], 1)

    def forward(self, h_BCYX: torch.Tensor, temb_1E: torch.Tensor) -> torch.Tensor:
        time_1C11 = self.temb_proj(nn.SiLU()(temb_1E)).unflatten(1, (-1, 1, 1))
        return self.conv2(nn.SiLU()(self.norm2(self.conv1(h_BCYX) + time_1C11)))


def test_a_network_of_asyrp_is_averaged_over_the_images_of_a_config(
    tiny_checkpoint: Path, shards: ModuleType, tmp_path: Path
) -> None:
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    time = load_time_embedding(checkpoint)
    torch.manual_seed(3)
    file = tmp_path / "f.pth"
    block = FaceBlock(time.width)
    torch.save({"0": block.state_dict(), "optimizer": {}}, file)
    shard = shards.write_tar(tmp_path / "in" / "a.tar", shards.samples(3))
    made = shards.config(tiny_checkpoint, shard, tmp_path / "run", edit={"window": [500, 300]})
    written = shards.write_config(tmp_path / "run.yaml", made)
    common = ["library", "import", file, "--library", tmp_path / "lib", "--format", "asyrp"]
    common += ["--model", tiny_checkpoint]
    assert call(*common) == 2  # without images
    assert call(*common, "--config", written, "--images", 3) == 0
    (found,) = read_library_folder(str(tmp_path / "lib")).directions
    assert (found.method, found.support) == ("asyrp", 3)
    assert list(found.timesteps) == sorted(found.timesteps, reverse=True)
    assert all(300 <= t <= 500 for t in found.timesteps)
    assert found.window == (found.timesteps[0], found.timesteps[-1])
    # By hand: the pictures as they were drawn, inverted in one batch, f_t by torch's own modules.
    pixels = np.stack([np.asarray(shards.picture(number)) for number in range(3)])
    image_BCHW = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    denoiser = load_denoiser(checkpoint, torch.device("cpu"), "after")
    grid = make_grid(checkpoint.scheduler_config, made.grid.num_steps, made.grid.spacing)
    top = grid.last_node(500)
    with torch.no_grad():
        states = dict(inversion(denoiser.predict, grid, image_BCHW, last=top, refinements=0))
        for step, t in enumerate(found.timesteps):
            h_BCYX = denoiser.encode(states[grid.nearest_node(t)], t).h_BCYX
            mean_D = block(h_BCYX, time.at(t)).mean(0).flatten()
            cosine = torch.cosine_similarity(mean_D, found.vector_SCYX[step].flatten(), dim=0)
            assert float(cosine) > 0.9999


def test_directions_of_another_model_do_not_enter(tiny_checkpoint: Path, tmp_path: Path) -> None:
    write_library(str(tmp_path / "lib"), {}, directions(tiny_checkpoint, 1))
    file = tmp_path / "some.pt"
    assert call("library", "export", tmp_path / "lib", "--output", file) == 0
    origin = Origin(checkpoint="embedded")
    with pytest.raises(ConfigProblem, match="but --model is"):
        import_file(str(tmp_path / "new"), str(file), origin, config=None, images=1)
    assert not (tmp_path / "new").exists()
