"""What cannot be used is refused before work starts, with one sentence, by its files alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.models.checkpoint import open_checkpoint
from lib.models.conditioning import Conditioning, check_conditioning
from lib.problems import ConfigProblem, ModelProblem

NAME = "diffusion_pytorch_model"
Copied = Callable[[str], Path]


@pytest.fixture
def copied(backbone: Callable[[str], Path], tmp_path: Path) -> Copied:
    return lambda kind: Path(shutil.copytree(backbone(kind), tmp_path / kind))


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


UNET: list[tuple[str, dict[str, Any], str]] = [
    ("stable-diffusion", {"in_channels": 9}, "got 9: it is an inpainting model"),
    ("stable-diffusion", {"in_channels": 5}, "got 5: it is a depth model"),
    ("stable-diffusion", {"in_channels": 8}, "got 8: it is a model of instructions"),
    ("stable-diffusion", {"addition_embed_type": "text_time"}, "Stable Diffusion XL"),
    ("stable-diffusion", {"encoder_hid_dim": 8}, "an input that no prompt gives"),
    ("stable-diffusion", {"cross_attention_dim": 768}, "text encoder gives 16 numbers a token"),
    ("stable-diffusion", {"mid_block_type": None}, "expected a mid block"),
    ("stable-diffusion", {"_class_name": "SD3Transformer2DModel"}, "got 'SD3Transformer2DModel'"),
    ("stable-diffusion", {"_class_name": ["mine", "UNet"]}, "code of its own"),
    ("stable-diffusion", {"auto_map": {"AutoModel": "mine.UNet"}}, "code of its own"),
    ("pixel", {"in_channels": 4}, "expected 3 input channels .RGB., got 4; a latent model needs"),
    ("pixel", {"in_channels": 1, "out_channels": 1}, "expected 3 input channels .RGB., got 1$"),
    ("pixel", {"out_channels": 5}, "expected 3 output channels, or 6 with a learned variance"),
    ("pixel", {"num_class_embeds": 10}, "class-conditional"),
    ("pixel", {"class_embed_type": "timestep"}, "class-conditional"),
    ("pixel", {"mid_block_type": None}, "expected a mid block"),
    ("pixel", {"down_block_types": ["AttnSkipDownBlock2D"] * 2}, "second image stream past h"),
    ("pixel", {"time_embedding_type": "fourier"}, "continuous noise levels"),
    ("pixel", {"num_train_timesteps": 4000}, "is 4000, but the scheduler's is 1000"),
    ("pixel", {"sample_size": [16, 32]}, "one integer .square images., got .16, 32."),
    ("pixel", {"sample_size": None}, "one integer .square images., got None"),
    ("vq", {"in_channels": 4}, "expected 3 input channels"),
]


@pytest.mark.parametrize(("kind", "values", "sentence"), UNET)
def test_a_unet_that_cannot_be_run_is_refused_with_the_reason(
    kind: str, values: dict[str, Any], sentence: str, copied: Copied
) -> None:
    folder = copied(kind)
    change(folder / "unet/config.json", **values)
    with pytest.raises(ModelProblem, match=sentence):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "no schedule of betas"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no schedule of betas"),
        ({"prediction_type": "flow"}, "expected prediction_type epsilon, v_prediction, sample"),
        ({"rescale_betas_zero_snr": True}, "makes the last timestep pure noise"),
    ],
)
def test_a_schedule_that_cannot_be_inverted_is_refused(
    values: dict[str, Any], sentence: str, copied: Copied
) -> None:
    folder = copied("pixel")
    change(folder / "scheduler/scheduler_config.json", **values)
    with pytest.raises(ModelProblem, match=sentence):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    ("kind", "part", "sentence"),
    [
        ("stable-diffusion", "vae", "expected vae/config.json or vqvae/config.json"),
        ("stable-diffusion", "text_encoder", "expected text_encoder/config.json"),
        ("stable-diffusion", "tokenizer", "expected tokenizer.json, or vocab.json and merges.txt"),
        ("stable-diffusion", "scheduler", "scheduler_config.json"),
        ("vq", "unet", "expected unet/config.json or config.json"),
        ("pixel", "scheduler", "scheduler_config.json"),
    ],
)
def test_a_missing_part_is_named(kind: str, part: str, sentence: str, copied: Copied) -> None:
    folder = copied(kind)
    shutil.rmtree(folder / part)
    with pytest.raises(ModelProblem, match=sentence):
        open_checkpoint(str(folder))


PARTS = [
    ("pixel", f"unet/{NAME}"),
    ("vq", f"vqvae/{NAME}"),
    ("stable-diffusion", f"vae/{NAME}"),
    ("stable-diffusion", "text_encoder/model"),
]


@pytest.mark.parametrize(("kind", "stem"), PARTS)
@pytest.mark.parametrize("left", [-1, 100, 4, 0])
def test_truncated_weights_of_every_part_are_found_by_their_header(
    kind: str, stem: str, left: int, copied: Copied
) -> None:
    file = copied(kind) / f"{stem}.safetensors"
    file.write_bytes(file.read_bytes()[:left])
    with pytest.raises(ModelProblem, match=f"{stem}.safetensors: expected a whole safetensors"):
        open_checkpoint(str(file.parent.parent))


@pytest.mark.parametrize(("kind", "stem"), PARTS)
def test_pickled_weights_of_every_part_are_refused_unopened(
    kind: str, stem: str, copied: Copied
) -> None:
    file = copied(kind) / f"{stem}.safetensors"
    file.rename(file.with_suffix(".bin"))
    with pytest.raises(ModelProblem, match=r"found only .*\.bin.*pickle can run code.*save_pretr"):
        open_checkpoint(str(file.parent.parent))


def test_a_git_lfs_pointer_is_called_one(copied: Copied) -> None:
    folder = copied("pixel")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    (folder / f"unet/{NAME}.safetensors").write_text(pointer)
    with pytest.raises(ModelProblem, match="git lfs pull"):
        open_checkpoint(str(folder))


def test_bytes_after_the_tensors_are_no_safetensors_file(copied: Copied) -> None:
    file = copied("pixel") / f"unet/{NAME}.safetensors"
    file.write_bytes(file.read_bytes() + b"more")
    with pytest.raises(ModelProblem, match="expected a whole safetensors"):
        open_checkpoint(str(file.parent.parent))


@pytest.mark.parametrize(
    ("part", "entry"), [("unet", ["my_unet", "MyUNet"]), ("text_encoder", ["mine", "Encoder"])]
)
def test_a_part_from_the_checkpoint_own_code_is_refused(
    part: str, entry: list[str], copied: Copied
) -> None:
    folder = copied("stable-diffusion")
    change(folder / "model_index.json", **{part: entry})
    (folder / part / f"{entry[0]}.py").write_text("raise SystemExit('run')")
    with pytest.raises(ModelProblem, match=f"{part} is .*code of the checkpoint's own"):
        open_checkpoint(str(folder))


def test_a_pipeline_of_the_checkpoint_own_code_is_refused(copied: Copied) -> None:
    folder = copied("pixel")
    change(folder / "model_index.json", _class_name=["pipeline", "Mine"])
    with pytest.raises(ModelProblem, match="brings code of its own, which is never run"):
        open_checkpoint(str(folder))


@pytest.mark.parametrize("name", ["model.ckpt", "v1-5-pruned.safetensors"])
def test_a_single_file_is_refused_with_the_way_to_convert_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelProblem, match=r"single file.*from_single_file\(file\)"):
        open_checkpoint(str(tmp_path / name))
    with pytest.raises(ModelProblem, match=rf"found only {name}.*from_single_file\(file\)"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(
    ("conditioning", "sentence"),
    [
        ({"prompt": "face"}, r"model\.prompt: .* is an unconditional model.*got 'face'"),
        ({"negative_prompt": "face"}, r"model\.negative_prompt: .* unconditional"),
        ({"guidance_scale": 2.0}, r"model\.guidance_scale: .* unconditional.*got 2\.0"),
    ],
)
@pytest.mark.parametrize("kind", ["pixel", "vq"])
def test_an_unconditional_model_takes_no_prompt_and_no_guidance(
    kind: str, conditioning: dict[str, Any], sentence: str, backbone: Callable[[str], Path]
) -> None:
    with pytest.raises(ConfigProblem, match=sentence):
        check_conditioning(open_checkpoint(str(backbone(kind))), Conditioning(**conditioning))


@pytest.mark.parametrize(
    ("conditioning", "sentence"),
    [
        ({"guidance_scale": 2.0}, "both are ''; expected different ones"),
        ({"negative_prompt": "face"}, "without guidance it is not used"),
        ({"prompt": "face " * 11}, r"model\.prompt: expected at most 12 tokens .* got 13"),
        (
            {"negative_prompt": "smile " * 11, "guidance_scale": 2.0},
            r"model\.negative_prompt: expected at most 12 tokens",
        ),
    ],
)
def test_a_prompt_that_cannot_be_followed_is_refused(
    conditioning: dict[str, Any], sentence: str, backbone: Callable[[str], Path]
) -> None:
    checkpoint = open_checkpoint(str(backbone("stable-diffusion")))
    with pytest.raises(ConfigProblem, match=sentence):
        check_conditioning(checkpoint, Conditioning(**conditioning))
    check_conditioning(checkpoint, Conditioning("face " * 10))


def test_a_checkpoint_and_its_prompt_are_checked_without_torch(
    backbone: Callable[[str], Path],
) -> None:
    code = (
        "import sys; from lib.models.checkpoint import open_checkpoint;"
        "from lib.models.conditioning import *;"
        f"found = open_checkpoint({str(backbone('stable-diffusion'))!r});"
        "check_conditioning(found, Conditioning('a face'));"
        "print(found.kind, found.image_size, found.latent_shape, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "text 16 (4, 8, 8) False"
