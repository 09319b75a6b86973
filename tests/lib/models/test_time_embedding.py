"""The time embedding against the U-Net's own, and against the formula of Ho et al. in numpy."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file

from lib.models.checkpoint import open_checkpoint
from lib.models.time_embedding import load_time_embedding
from lib.problems import ModelProblem

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def configure(folder: Path, **values: object) -> None:
    path = folder / "unet/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(("flip", "shift"), [(True, 0), (False, 1)])
def test_it_is_what_the_blocks_of_the_unet_get(flip: bool, shift: int, folder: Path) -> None:
    configure(folder, flip_sin_to_cos=flip, freq_shift=shift)
    time = load_time_embedding(open_checkpoint(str(folder)))
    unet = UNet2DModel.from_pretrained(folder / "unet")
    seen: list[torch.Tensor] = []
    unet.time_embedding.register_forward_hook(lambda _m, _a, output: seen.append(output))
    with torch.no_grad():
        for t in (0, 17, 999):
            unet(torch.zeros(1, 3, 16, 16), t)
            assert torch.equal(time.at(t), seen.pop())
    assert time.width == 64


def test_without_shift_and_flip_it_is_the_embedding_of_ho_et_al(folder: Path) -> None:
    configure(folder, flip_sin_to_cos=False, freq_shift=1)
    time = load_time_embedding(open_checkpoint(str(folder)))
    w = {k: v.double().numpy() for k, v in load_file(folder / "unet" / WEIGHTS).items()}
    t, half = 523, 8
    phase = t * np.exp(-np.log(10000) / (half - 1) * np.arange(half))
    a = np.concatenate([np.sin(phase), np.cos(phase)])
    a = w["time_embedding.linear_1.weight"] @ a + w["time_embedding.linear_1.bias"]
    a = a / (1 + np.exp(-a))
    a = w["time_embedding.linear_2.weight"] @ a + w["time_embedding.linear_2.bias"]
    np.testing.assert_allclose(time.at(t)[0].numpy(), a, atol=2e-5)


def test_other_embeddings_and_damaged_weights_are_refused(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    weights = load_file(path)
    del weights["time_embedding.linear_2.bias"]
    save_file(weights, path)
    with pytest.raises(ModelProblem, match="weights of a time embedding"):
        load_time_embedding(open_checkpoint(str(folder)))
    configure(folder, num_class_embeds=3)
    with pytest.raises(ModelProblem, match="class-conditional"):
        load_time_embedding(open_checkpoint(str(folder)))
