"""Every kind of checkpoint against the libraries' own pipelines on the same files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from diffusers import DDPMPipeline, LDMPipeline, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from lib.denoiser import Denoiser
from lib.discovery.jacobian import h_jacobian
from lib.models.autoencoder import LatentSpace
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint, weights_sha256
from lib.models.conditioning import Conditioning
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ModelProblem

CPU = torch.device("cpu")
KINDS = (
    "pixel", "learned-variance", "v-prediction", "vq", "stable-diffusion", "stable-diffusion-2",
    "guided",
)  # fmt: skip
T, ALPHA = 300, 0.4
Saved = Callable[[str], Path]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def load(backbone: Saved, backbones: ModuleType) -> Callable[..., Denoiser]:
    def loaded(kind: str, h_layer: str = "after") -> Denoiser:
        conditioning = Conditioning(**backbones.OPTIONS.get(kind, {}))
        return load_denoiser(open_checkpoint(str(backbone(kind))), CPU, h_layer, conditioning)

    return loaded


def pipeline(folder: Path) -> Any:
    """As the library itself loads the folder."""
    name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    classes = (DDPMPipeline, LDMPipeline, StableDiffusionPipeline)
    (wanted,) = (c for c in classes if c.__name__ == name)
    return wanted.from_pretrained(folder, local_files_only=True)


def noisy(denoiser: Denoiser, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *denoiser.latent_shape, generator=generator)


@torch.no_grad()
def test_the_prediction_is_that_of_the_library_own_modules(
    kind: str, load: Callable[..., Denoiser], backbone: Saved, backbones: ModuleType
) -> None:
    denoiser, own = load(kind), pipeline(backbone(kind))
    x_BLYX = noisy(denoiser)
    options = backbones.OPTIONS.get(kind, {})
    if kind == "guided":
        with_1ME, without_1ME = own.encode_prompt(
            options["prompt"], CPU, 1, True, negative_prompt=options["negative_prompt"]
        )
        g = options["guidance_scale"]
        with_, without = (
            own.unet(x_BLYX, T, encoder_hidden_states=e.expand(2, -1, -1)).sample
            for e in (with_1ME, without_1ME)
        )
        expected = without + g * (with_ - without)
        assert (with_ - without).abs().max() > 1e-4
    elif options:
        prompt_1ME, _ = own.encode_prompt(options["prompt"], CPU, 1, False)
        expected = own.unet(x_BLYX, T, encoder_hidden_states=prompt_1ME.expand(2, -1, -1)).sample
    else:
        expected = own.unet(x_BLYX, T).sample
    if own.scheduler.config.prediction_type == "v_prediction":
        alpha = float(own.scheduler.alphas_cumprod[T])
        expected = alpha**0.5 * expected + (1 - alpha) ** 0.5 * x_BLYX
        torch.testing.assert_close(denoiser.predict(x_BLYX, T), expected, rtol=1e-5, atol=1e-5)
    else:
        assert torch.equal(denoiser.predict(x_BLYX, T), expected[:, : x_BLYX.shape[1]])
    assert denoiser.passes == (2 if kind == "guided" else 1)


@torch.no_grad()
@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
def test_decode_of_the_own_h_is_bit_equal_to_the_whole_forward(
    kind: str, h_layer: str, load: Callable[..., Denoiser]
) -> None:
    denoiser = load(kind, h_layer)
    x_BLYX = noisy(denoiser)
    whole = denoiser.predict(x_BLYX, T)
    point = denoiser.encode(x_BLYX, T)
    assert torch.equal(point.eps_BLYX, whole)
    assert torch.equal(denoiser.decode(point, point.h_BCYX), whole)
    assert torch.equal(denoiser.bottleneck(x_BLYX, T), point.h_BCYX)
    assert point.h_BCYX.shape[1:] == denoiser.h_shape
    shift_BCYX = torch.randn_like(point.h_BCYX)
    shifted = denoiser.predict_shifted(x_BLYX, T, shift_BCYX)
    decoded = denoiser.decode(point, point.h_BCYX + shift_BCYX)
    torch.testing.assert_close(decoded, shifted, rtol=0, atol=1e-5)
    assert (shifted - whole).abs().max() > 1e-3
    assert torch.equal(denoiser.predict(x_BLYX, T), whole)


@torch.no_grad()
def test_one_point_of_a_batch_serves_many_shifts(kind: str, load: Callable[..., Denoiser]) -> None:
    denoiser = load(kind)
    point = denoiser.encode(noisy(denoiser), T).row(1)
    h_BCYX = point.h_BCYX + torch.randn(3, *denoiser.h_shape)
    singly = torch.cat([denoiser.decode(point, h[None]) for h in h_BCYX])
    torch.testing.assert_close(denoiser.decode(point, h_BCYX), singly, rtol=0, atol=1e-5)


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
def test_products_of_the_jacobian_are_those_of_float64(
    kind: str, h_layer: str, load: Callable[..., Denoiser], backbone: Saved, backbones: ModuleType
) -> None:
    """Both ways to a forward product and the reverse one, against forward mode in float64 and
    central differences of it.
    """
    denoiser = load(kind, h_layer)
    x_BLYX = noisy(denoiser, 1)
    with torch.no_grad():
        point = denoiser.encode(x_BLYX, T)
    exact = in_float64(backbone(kind), backbones.OPTIONS.get(kind, {}), h_layer)
    generator = torch.Generator().manual_seed(2)
    V_KD = torch.randn(3, point.h_BCYX.numel(), generator=generator)
    step = 1e-5
    with torch.no_grad():
        h_1CYX, dh_KCYX = exact.h(x_BLYX), V_KD.double().view(3, *denoiser.h_shape)
        eps = [exact.decode(x_BLYX, h_1CYX + sign * step * dh_KCYX) for sign in (1, -1)]
    slope = -((1 - ALPHA) ** 0.5) / ALPHA**0.5  # d P_t / d eps (Haas et al. 2024, eq. 16)
    expected_KN = slope * (eps[0] - eps[1]).flatten(1) / (2 * step)
    for products in ("linearised", "forward"):
        jacobian = h_jacobian(denoiser, point, ALPHA, chunk=2, products=products)
        assert jacobian.products == products
        JV_KN = jacobian.jvp(V_KD)
        assert (JV_KN - expected_KN).norm() / expected_KN.norm() < 2e-5, products
        U_KN = torch.randn(JV_KN.shape, generator=generator)
        ahead, back = (JV_KN * U_KN).sum(1), (V_KD * jacobian.vjp(U_KN)).sum(1)
        assert (ahead - back).abs().max() < 2e-6 * JV_KN.norm() * U_KN.norm()


class in_float64:  # noqa: N801, reads as a phrase
    """eps as a function of h in float64, by plain forward hooks on the library's own modules."""

    def __init__(self, folder: Path, options: dict[str, Any], h_layer: str) -> None:
        own = pipeline(folder)
        self._unet = own.unet.double().requires_grad_(False)
        self._place = h_layer
        self._prediction = own.scheduler.config.prediction_type
        self._alpha = float(own.scheduler.alphas_cumprod[T])
        self._told: list[dict[str, Tensor]] = [{}]
        self._weights = [1.0]
        if options:
            prompts = own.encode_prompt(
                options["prompt"], CPU, 1, True, negative_prompt=options.get("negative_prompt")
            )
            self._told = [{"encoder_hidden_states": p.double()} for p in prompts]
            g = options.get("guidance_scale", 1.0)
            self._weights = [g, 1 - g]

    def h(self, x_BLYX: Tensor) -> Tensor:
        return self._run(x_BLYX.double(), 0, None)[1]

    def decode(self, x_BLYX: Tensor, h_KCYX: Tensor) -> Tensor:
        """Every branch is shifted by what h differs from that of the first."""
        x_KLYX = x_BLYX.double().expand(len(h_KCYX), -1, -1, -1)
        shift_KCYX = h_KCYX - self.h(x_BLYX)
        return sum(
            (w * self._run(x_KLYX, b, shift_KCYX)[0] for b, w in enumerate(self._weights)),
            torch.zeros(1, dtype=torch.float64),
        )

    def _run(self, x_KLYX: Tensor, branch: int, shift_KCYX: Tensor | None) -> tuple[Tensor, Tensor]:
        module = {
            "before": self._unet.down_blocks[-1],
            "middle": self._unet.mid_block.resnets[-1].norm2,
            "after": self._unet.mid_block,
        }[self._place]
        seen = []

        def shift(_module: Any, _args: Any, output: Any) -> Any:
            h = output[0] if self._place == "before" else output
            seen.append(h)
            moved = h if shift_KCYX is None else h + shift_KCYX
            return (moved, *output[1:]) if self._place == "before" else moved

        handle = module.register_forward_hook(shift)
        told = {k: v.expand(len(x_KLYX), -1, -1) for k, v in self._told[branch].items()}
        output = self._unet(x_KLYX, T, **told).sample[:, : x_KLYX.shape[1]]
        handle.remove()
        if self._prediction == "v_prediction":
            output = self._alpha**0.5 * output + (1 - self._alpha) ** 0.5 * x_KLYX
        return output, seen[0]


@torch.no_grad()
def test_vq_latents_are_unquantised_and_images_are_decoded_from_the_codebook(
    load: Callable[..., Denoiser], backbone: Saved, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(backbone("vq"), tmp_path / "vq"))
    without_scale(folder / "vqvae")
    denoiser, own = denoiser_of(folder), pipeline(backbone("vq")).vqvae
    image_BCHW = torch.rand(2, 3, 16, 16) * 2 - 1
    latent_BLYX = own.encode(image_BCHW).latents
    assert torch.equal(denoiser.latent(image_BCHW), latent_BLYX)
    assert torch.equal(denoiser.image(latent_BLYX), own.decode(latent_BLYX).sample)
    assert denoiser.image_size == 16
    assert denoiser.latent_shape == (3, 8, 8)


@torch.no_grad()
def test_kl_latents_are_the_scaled_mean(load: Callable[..., Denoiser], backbone: Saved) -> None:
    denoiser, own = load("stable-diffusion"), pipeline(backbone("stable-diffusion")).vae
    image_BCHW = torch.rand(2, 3, 16, 16) * 2 - 1
    mean_BLYX = own.encode(image_BCHW).latent_dist.mean
    torch.testing.assert_close(denoiser.latent(image_BCHW), mean_BLYX * 0.18215)
    torch.testing.assert_close(
        denoiser.image(mean_BLYX * 0.18215), own.decode(mean_BLYX).sample, rtol=1e-4, atol=1e-5
    )
    assert torch.equal(denoiser.latent(image_BCHW), denoiser.latent(image_BCHW))


def without_scale(part: Path) -> None:
    config = json.loads((part / "config.json").read_text())
    del config["scaling_factor"]
    (part / "config.json").write_text(json.dumps(config))


def denoiser_of(folder: Path) -> Denoiser:
    return load_denoiser(open_checkpoint(str(folder)), CPU, "after")


@torch.no_grad()
@pytest.mark.parametrize(
    ("config", "kl_scale", "vq_scale"),
    [({}, 0.18215, 1.0), ({"scaling_factor": 0.5}, 0.5, 0.5)],
)
def test_the_scale_is_that_of_the_config_or_of_the_age_of_the_file(
    config: dict[str, Any], kl_scale: float, vq_scale: float, backbones: ModuleType
) -> None:
    image_BCHW = torch.rand(1, 3, 16, 16) * 2 - 1
    kl = backbones.autoencoder("AutoencoderKL")
    found = LatentSpace(kl, config).latent(image_BCHW)
    torch.testing.assert_close(found, kl.encode(image_BCHW).latent_dist.mean * kl_scale)
    vq = backbones.autoencoder("VQModel", num_vq_embeddings=32)
    found = LatentSpace(vq, config).latent(image_BCHW)
    torch.testing.assert_close(found, vq.encode(image_BCHW).latents * vq_scale)


@torch.no_grad()
def test_shift_and_moments_of_the_latents_are_undone_by_decoding(backbones: ModuleType) -> None:
    kl = backbones.autoencoder("AutoencoderKL", latent_channels=2)
    config = {"scaling_factor": 2.0, "shift_factor": 0.5}
    config |= {"latents_mean": [1.0, -1.0], "latents_std": [4.0, 0.5]}
    space, image_BCHW = LatentSpace(kl, config), torch.rand(1, 3, 16, 16) * 2 - 1
    mean_BLYX = kl.encode(image_BCHW).latent_dist.mean
    latent_BLYX = space.latent(image_BCHW)
    torch.testing.assert_close(latent_BLYX[:, 0], (mean_BLYX[:, 0] - 1.5) * 2 / 4)
    torch.testing.assert_close(latent_BLYX[:, 1], (mean_BLYX[:, 1] + 0.5) * 2 / 0.5)
    torch.testing.assert_close(space.image(latent_BLYX), kl.decode(mean_BLYX).sample)
    with pytest.raises(ModelProblem, match="positive scaling_factor"):
        LatentSpace(kl, {"scaling_factor": 0.0})


@torch.no_grad()
def test_the_prompt_is_embedded_as_by_transformers(
    load: Callable[..., Denoiser], backbone: Saved, backbones: ModuleType
) -> None:
    folder = backbone("stable-diffusion")
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
    ids = tokenizer(
        backbones.PROMPT["prompt"], padding="max_length", max_length=12, return_tensors="pt"
    ).input_ids
    assert ids.shape == (1, backbones.PROMPT_TOKENS)
    denoiser = load("stable-diffusion")
    seen: list[Tensor] = []
    assert isinstance(denoiser, UNetDenoiser)
    network = denoiser._unet  # noqa: SLF001, what the network is told is what counts
    handle = network.register_forward_pre_hook(
        lambda _m, _a, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    denoiser.predict(noisy(denoiser), T)
    handle.remove()
    expected_1ME = encoder(ids).last_hidden_state
    assert torch.equal(seen[0], expected_1ME.expand(2, -1, -1))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["pixel", "vq", "stable-diffusion"])
def test_weights_named_as_before_diffusers_0_13_are_read(
    kind: str, backbone: Saved, tmp_path: Path
) -> None:
    """As in the files of google/ddpm-celebahq-256 and of Stable Diffusion's autoencoder."""
    folder = Path(shutil.copytree(backbone(kind), tmp_path / kind))
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = 0
    for file in folder.glob("*/diffusion_pytorch_model.safetensors"):
        if kind == "stable-diffusion" and file.parent.name == "unet":
            continue
        weights = {}
        for name, value in load_file(file).items():
            for new, old in former.items():
                if f".{new}." in name:
                    name, renamed = name.replace(f".{new}.", f".{old}."), renamed + 1
            weights[name] = value
        save_file(weights, file)
    assert renamed >= 8
    one, two = denoiser_of(folder), denoiser_of(backbone(kind))
    image_BCHW = torch.rand(1, 3, 16, 16) * 2 - 1
    assert torch.equal(one.predict(noisy(one), T), two.predict(noisy(two), T))
    assert torch.equal(one.image(one.latent(image_BCHW)), two.image(two.latent(image_BCHW)))


@torch.no_grad()
@pytest.mark.parametrize("layout", ["fp16", "sharded"])
def test_half_precision_alone_and_weights_in_several_files_are_read(
    layout: str, backbone: Saved, tmp_path: Path
) -> None:
    folder = tmp_path / layout
    own = pipeline(backbone("stable-diffusion"))
    if layout == "fp16":
        own.to(torch.float16).save_pretrained(folder, variant="fp16")
    else:
        own.save_pretrained(folder, max_shard_size="40KB")
    assert not (folder / "unet/diffusion_pytorch_model.safetensors").exists()
    found, whole = denoiser_of(folder), denoiser_of(backbone("stable-diffusion"))
    x_BLYX = noisy(whole)
    eps_BLYX = found.predict(x_BLYX, T)
    assert eps_BLYX.dtype == torch.float32
    bound = 2e-2 if layout == "fp16" else 0
    torch.testing.assert_close(eps_BLYX, whole.predict(x_BLYX, T), rtol=0, atol=bound)


def test_the_hash_follows_every_part(backbone: Saved, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(backbone("stable-diffusion"), tmp_path / "sd"))
    seen = {weights_sha256(open_checkpoint(str(folder)))}
    for name in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"):
        weights = load_file(folder / f"{name}.safetensors")
        first = sorted(weights)[0]
        save_file(weights | {first: weights[first] + 1}, folder / f"{name}.safetensors")
        seen.add(weights_sha256(open_checkpoint(str(folder))))
    weights = load_file(folder / "text_encoder/model.safetensors")
    first = sorted(weights)[0]
    save_file(
        weights | {first: weights[first] + 1},
        folder / "text_encoder/model.safetensors",
        {"format": "pt"},
    )
    seen.add(weights_sha256(open_checkpoint(str(folder))))
    tokens = folder / "tokenizer/tokenizer_config.json"
    tokens.write_text(tokens.read_text() + " ")
    seen.add(weights_sha256(open_checkpoint(str(folder))))
    assert len(seen) == 5
