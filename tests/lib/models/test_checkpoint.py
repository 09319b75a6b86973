import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint, weights_sha256
from lib.problems import ModelProblem

WEIGHTS = "diffusion_pytorch_model.safetensors"
CPU = torch.device("cpu")


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "model"))


def test_both_hub_layouts_are_read_and_have_one_hash(folder: Path, tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in [*(folder / "unet").iterdir(), *(folder / "scheduler").iterdir()]:
        shutil.copy(file, flat)
    nested, top = open_checkpoint(str(folder)), open_checkpoint(str(flat))
    assert nested.image_size == 16
    assert weights_sha256(nested) == weights_sha256(top)


def test_other_weights_have_another_hash(folder: Path) -> None:
    before = weights_sha256(open_checkpoint(str(folder)))
    weights = load_file(folder / "unet" / WEIGHTS)
    weights["conv_in.bias"] += 1
    save_file(weights, folder / "unet" / WEIGHTS)
    assert weights_sha256(open_checkpoint(str(folder))) != before


def test_a_name_that_is_no_folder_is_refused() -> None:
    with pytest.raises(ModelProblem, match="expected a folder in diffusers format"):
        open_checkpoint("no/such/model")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    with pytest.raises(ModelProblem, match="holds no weights"):
        open_checkpoint(str(folder))


def test_pickled_weights_are_refused_unopened_with_the_way_to_convert(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ModelProblem, match=r"diffusion_pytorch_model\.bin.*save_pretrained"):
        open_checkpoint(str(folder))


def test_a_missing_scheduler_is_refused(folder: Path) -> None:
    shutil.rmtree(folder / "scheduler")
    with pytest.raises(ModelProblem, match=r"scheduler_config\.json"):
        open_checkpoint(str(folder))


def test_another_class_is_refused(folder: Path) -> None:
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps(config | {"_class_name": "DiTModel"}))
    with pytest.raises(ModelProblem, match=r"expected a UNet2DModel .* got 'DiTModel'"):
        open_checkpoint(str(folder))


def test_a_config_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(ModelProblem, match="expected a JSON object"):
        open_checkpoint(str(folder))


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelProblem, match="expected a whole safetensors file"):
        load_denoiser(open_checkpoint(str(folder)), CPU, "after")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    weights = load_file(path)
    weights["conv_out.bias"] = torch.zeros(7)
    save_file(weights, path)
    with pytest.raises(ModelProblem, match=r"do not fit the architecture.*conv_out\.bias"):
        load_denoiser(open_checkpoint(str(folder)), CPU, "after")


def test_weights_that_are_not_finite_are_refused(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    weights = load_file(path)
    weights["conv_out.bias"][0] = float("nan")
    save_file(weights, path)
    with pytest.raises(ModelProblem, match="expected finite weights"):
        load_denoiser(open_checkpoint(str(folder)), CPU, "after")


def test_half_precision_weights_are_computed_in_float32(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    save_file({k: v.half() for k, v in load_file(path).items()}, path)
    denoiser = load_denoiser(open_checkpoint(str(folder)), CPU, "after")
    with torch.no_grad():
        assert denoiser.predict(torch.zeros(1, 3, 16, 16), 10).dtype == torch.float32


def test_skip_blocks_are_refused_with_the_reason(folder: Path) -> None:
    config = json.loads((folder / "unet/config.json").read_text())
    config["down_block_types"] = ["SkipDownBlock2D", "DownBlock2D"]
    (folder / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(ModelProblem, match="second image stream"):
        load_denoiser(open_checkpoint(str(folder)), CPU, "after")
