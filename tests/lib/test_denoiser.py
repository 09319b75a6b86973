from pathlib import Path
from types import ModuleType

import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from lib.denoiser import epsilon
from lib.discovery.jacobian import h_jacobian, pullback, x_jacobian
from lib.models.backbones import load_denoiser
from lib.models.checkpoint import open_checkpoint
from lib.models.unet_denoiser import UNetDenoiser
from lib.problems import ModelProblem
from lib.sampling.grid import training_alphas

CPU = torch.device("cpu")


def load(folder: Path, h_layer: str = "after") -> UNetDenoiser:
    return load_denoiser(open_checkpoint(str(folder)), CPU, h_layer)


@pytest.fixture(name="x_BLYX")
def noisy() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
def test_decode_of_the_own_h_is_bit_equal_to_the_whole_forward(
    tiny_checkpoint: Path, h_layer: str, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint, h_layer)
    with torch.no_grad():
        whole = denoiser.predict(x_BLYX, 300)
        point = denoiser.encode(x_BLYX, 300)
        assert torch.equal(point.eps_BLYX, whole)
        assert torch.equal(denoiser.decode(point, point.h_BCYX), whole)
        assert torch.equal(denoiser.predict(x_BLYX, 300), whole)


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
def test_shifting_h_in_one_pass_equals_decoding_the_shifted_h(
    tiny_checkpoint: Path, h_layer: str, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint, h_layer)
    with torch.no_grad():
        point = denoiser.encode(x_BLYX, 300)
        shift_BCYX = torch.randn_like(point.h_BCYX)
        shifted = denoiser.predict_shifted(x_BLYX, 300, shift_BCYX)
        assert torch.equal(shifted, denoiser.decode(point, point.h_BCYX + shift_BCYX))
        assert (shifted - point.eps_BLYX).abs().max() > 1e-3


def test_model_is_itself_again_after_an_exception_inside_decode(
    tiny_checkpoint: Path, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint)
    with torch.no_grad():
        whole = denoiser.predict(x_BLYX, 300)
        point = denoiser.encode(x_BLYX, 300)
        with pytest.raises(RuntimeError):
            denoiser.decode(point, torch.zeros(2, 5, 1, 1))
        assert torch.equal(denoiser.predict(x_BLYX, 300), whole)


def test_one_point_serves_a_batch_of_shifts(tiny_checkpoint: Path, x_BLYX: torch.Tensor) -> None:
    denoiser = load(tiny_checkpoint)
    with torch.no_grad():
        point = denoiser.encode(x_BLYX, 300)
        h_BCYX = point.h_BCYX[:1] + torch.randn(5, *denoiser.h_shape)
        batched = denoiser.decode(point.row(0), h_BCYX)
        singly = torch.cat([denoiser.decode(point.row(0), h[None]) for h in h_BCYX])
    torch.testing.assert_close(batched, singly, rtol=0, atol=2e-6)


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
def test_forward_and_reverse_products_are_adjoint_and_match_finite_differences(
    tiny_checkpoint: Path, h_layer: str, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint, h_layer)
    alpha = 0.4
    with torch.no_grad():
        point = denoiser.encode(x_BLYX[:1], 300)
    jacobian = h_jacobian(denoiser, point, alpha, chunk=2)
    generator = torch.Generator().manual_seed(2)
    V_KD = torch.randn(3, jacobian.domain, generator=generator)
    U_KN = torch.randn(3, 3 * 16 * 16, generator=generator)
    JV_KN, JtU_KD = jacobian.jvp(V_KD), jacobian.vjp(U_KN)
    torch.testing.assert_close((JV_KN * U_KN).sum(1), (V_KD * JtU_KD).sum(1), rtol=1e-4, atol=1e-4)
    assert (jacobian.jvp_count, jacobian.vjp_count) == (3, 3)

    step = 1e-2
    with torch.no_grad():
        dh = step * V_KD[0].view_as(point.h_BCYX)
        difference = denoiser.decode(point, point.h_BCYX + dh) - denoiser.decode(
            point, point.h_BCYX - dh
        )
    scale = -((1 - alpha) ** 0.5) / alpha**0.5  # d P_t / d eps
    expected_N = scale * difference.flatten() / (2 * step)
    assert (JV_KN[0] - expected_N).norm() / expected_N.norm() < 5e-3


def test_attention_in_the_up_path_has_forward_products_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    denoiser = load(tmp_path)
    with torch.no_grad():
        point = denoiser.encode(torch.randn(1, 3, 16, 16), 300)
    jacobian = h_jacobian(denoiser, point, 0.4, chunk=3)
    V_KD, U_KN = torch.randn(3, jacobian.domain), torch.randn(3, 3 * 16 * 16)
    forward_K, reverse_K = (jacobian.jvp(V_KD) * U_KN).sum(1), (V_KD * jacobian.vjp(U_KN)).sum(1)
    torch.testing.assert_close(forward_K, reverse_K, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_products_of_the_cpu(tiny_checkpoint: Path, x_BLYX: torch.Tensor) -> None:
    products = []
    V_KD = torch.randn(3, 32 * 8 * 8, generator=torch.Generator().manual_seed(2))
    for device in (CPU, torch.device("cuda")):
        denoiser = load_denoiser(open_checkpoint(str(tiny_checkpoint)), device, "after")
        with torch.no_grad():
            point = denoiser.encode(x_BLYX[:1].to(device), 300)
        jacobian = h_jacobian(denoiser, point, 0.4, chunk=3)
        products.append(jacobian.jvp(V_KD.to(device)).cpu())
    torch.testing.assert_close(products[0], products[1], rtol=1e-3, atol=1e-4)


def test_prediction_types_agree_on_the_same_noise() -> None:
    x0, eps, alpha = torch.rand(1, 3, 4, 4), torch.randn(1, 3, 4, 4), 0.3
    x = alpha**0.5 * x0 + (1 - alpha) ** 0.5 * eps
    v = alpha**0.5 * eps - (1 - alpha) ** 0.5 * x0
    torch.testing.assert_close(epsilon(eps, x, alpha, "epsilon"), eps)
    torch.testing.assert_close(epsilon(v, x, alpha, "v_prediction"), eps, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(epsilon(x0, x, alpha, "sample"), eps, rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelProblem, match="expected prediction_type"):
        epsilon(eps, x, alpha, "flow")


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
@pytest.mark.parametrize("products", ["linearised", "double_backward", "difference"])
def test_every_way_to_a_forward_product_agrees_with_forward_mode(
    tiny_checkpoint: Path, h_layer: str, products: str, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint, h_layer)
    with torch.no_grad():
        point = denoiser.encode(x_BLYX[:1], 300)
    V_KD = torch.randn(5, point.h_BCYX.numel(), generator=torch.Generator().manual_seed(3))
    exact_KN = h_jacobian(denoiser, point, 0.4, chunk=2, products="forward").jvp(V_KD)
    found_KN = h_jacobian(denoiser, point, 0.4, chunk=2, products=products).jvp(V_KD)
    error = float((found_KN - exact_KN).norm() / exact_KN.norm())
    assert error < (2e-3 if products == "difference" else 2e-6)


def test_the_model_is_itself_again_after_linearised_products(
    tiny_checkpoint: Path, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint)
    with torch.no_grad():
        whole = denoiser.predict(x_BLYX, 300)
        product = denoiser.linearised(denoiser.encode(x_BLYX[:1], 300))
        product(torch.ones(2, *denoiser.h_shape))
        assert torch.equal(denoiser.predict(x_BLYX, 300), whole)
        with pytest.raises(RuntimeError):
            product(torch.ones(2, 5, 1, 1))
        assert torch.equal(denoiser.predict(x_BLYX, 300), whole)


def test_h_alone_is_that_of_the_whole_pass_and_has_a_pullback(
    tiny_checkpoint: Path, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint)
    with torch.no_grad():
        assert torch.equal(denoiser.bottleneck(x_BLYX, 300), denoiser.encode(x_BLYX, 300).h_BCYX)
    for jacobian in (
        pullback(denoiser, x_BLYX[:1], 300, chunk=2),
        x_jacobian(denoiser, x_BLYX[:1], 300, 0.4, chunk=2),
    ):
        generator = torch.Generator().manual_seed(4)
        V_KD = torch.randn(3, jacobian.domain, generator=generator)
        JV_KN = jacobian.jvp(V_KD)
        U_KN = torch.randn(JV_KN.shape, generator=generator)
        ahead, back = (JV_KN * U_KN).sum(1), (V_KD * jacobian.vjp(U_KN)).sum(1)
        torch.testing.assert_close(ahead, back, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("products", ["linearised", "forward", "double_backward", "difference"])
def test_attention_on_both_sides_of_the_network_has_all_products(
    tmp_path: Path, products: str, x_BLYX: torch.Tensor
) -> None:
    """As in google/ddpm-celebahq-256: attention leaves activations transposed in memory."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=16,
    )
    DDPMPipeline(unet, DDPMScheduler(clip_sample=False)).save_pretrained(tmp_path)
    denoiser = load(tmp_path)
    with torch.no_grad():
        whole = denoiser.predict(x_BLYX, 300)
        point = denoiser.encode(x_BLYX[:1], 300)
        assert torch.equal(denoiser.decode(point, point.h_BCYX), denoiser.predict(x_BLYX[:1], 300))
    jacobians = [h_jacobian(denoiser, point, 0.4, chunk=2, products=products)]
    if products != "linearised":
        jacobians += [
            x_jacobian(denoiser, x_BLYX[:1], 300, 0.4, chunk=2, products=products),
            pullback(denoiser, x_BLYX[:1], 300, chunk=2, products=products),
        ]
    for jacobian in jacobians:
        generator = torch.Generator().manual_seed(4)
        V_KD = torch.randn(3, jacobian.domain, generator=generator)
        JV_KN = jacobian.jvp(V_KD)
        U_KN = torch.randn(JV_KN.shape, generator=generator)
        ahead, back = (JV_KN * U_KN).sum(1), (V_KD * jacobian.vjp(U_KN)).sum(1)
        scale = float(JV_KN.norm() * U_KN.norm())
        bound = 1e-3 if products == "difference" else 1e-6
        assert float((ahead - back).abs().max()) < bound * scale
    with torch.no_grad():
        assert torch.equal(denoiser.predict(x_BLYX, 300), whole)


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@torch.no_grad()
def test_timesteps_of_each_example_are_as_one_by_one(
    backbones: ModuleType, prediction_type: str, h_layer: str
) -> None:
    alphas_T = [float(a) for a in training_alphas({})]
    denoiser = UNetDenoiser(backbones.unet(), alphas_T, prediction_type, h_layer)
    t_B = torch.tensor([20, 300, 999])
    generator = torch.Generator().manual_seed(5)
    x_BLYX = torch.randn(3, 3, 16, 16, generator=generator)
    shift_BCYX = torch.randn(3, *denoiser.h_shape, generator=generator)
    point = denoiser.encode(x_BLYX, t_B)
    found = {
        "predict": denoiser.predict(x_BLYX, t_B),
        "encode": point.eps_BLYX,
        "h": point.h_BCYX,
        "decode": denoiser.decode(point, point.h_BCYX + shift_BCYX),
        "shifted": denoiser.predict_shifted(x_BLYX, t_B, shift_BCYX),
        "rows": denoiser.decode(point.rows([2, 0, 1]), (point.h_BCYX + shift_BCYX)[[2, 0, 1]]),
    }
    found["rows"] = found["rows"][[1, 2, 0]]
    for row, t in enumerate(t_B.tolist()):
        x, shift = x_BLYX[row : row + 1], shift_BCYX[row : row + 1]
        own = denoiser.encode(x, t)
        edited = denoiser.decode(own, own.h_BCYX + shift)
        alone = {"predict": denoiser.predict(x, t), "encode": own.eps_BLYX, "h": own.h_BCYX}
        alone |= {"decode": edited, "shifted": edited, "rows": edited}
        for name, expected in alone.items():
            torch.testing.assert_close(found[name][row], expected[0], rtol=2e-4, atol=2e-5)
        one = point.row(row)
        again = denoiser.decode(one, one.h_BCYX + torch.cat([shift, -shift]))
        torch.testing.assert_close(again[0], edited[0], rtol=2e-4, atol=2e-5)
    assert found["predict"].dtype == torch.float32


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_alpha_of_each_example_gives_its_own_epsilon(prediction_type: str) -> None:
    x, eps = torch.rand(3, 3, 4, 4).double(), torch.randn(3, 3, 4, 4).double()
    alphas = [0.9, 0.5, 0.01]
    output = {
        "epsilon": eps,
        "v_prediction": torch.stack(
            [(e - (1 - a) ** 0.5 * i) / a**0.5 for a, e, i in zip(alphas, eps, x, strict=True)]
        ),
        "sample": torch.stack(
            [(i - (1 - a) ** 0.5 * e) / a**0.5 for a, e, i in zip(alphas, eps, x, strict=True)]
        ),
    }[prediction_type]
    alpha_B111 = torch.tensor(alphas, dtype=torch.float64).view(-1, 1, 1, 1)
    torch.testing.assert_close(epsilon(output, x, alpha_B111, prediction_type), eps)
    for row, alpha in enumerate(alphas):
        alone = epsilon(output[row : row + 1], x[row : row + 1], alpha, prediction_type)
        torch.testing.assert_close(alone[0], eps[row])


@pytest.mark.parametrize("h_layer", ["before", "middle", "after"])
def test_a_shift_that_depends_on_h_is_that_of_the_tensor_it_returns(
    tiny_checkpoint: Path, h_layer: str, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint, h_layer)
    seen: list[torch.Tensor] = []

    def shift(h_BCYX: torch.Tensor) -> torch.Tensor:
        seen.append(h_BCYX.clone())
        return torch.tanh(h_BCYX.flip(1)) + 0.3

    for t in (300, torch.tensor([300, 700])):
        with torch.no_grad():
            found = denoiser.predict_shifted(x_BLYX, t, shift)
            h_BCYX = denoiser.encode(x_BLYX, t).h_BCYX
            expected = denoiser.predict_shifted(x_BLYX, t, torch.tanh(h_BCYX.flip(1)) + 0.3)
            plain = denoiser.predict(x_BLYX, t)
        assert torch.equal(seen.pop(), h_BCYX)
        assert not seen, "it is asked once a pass"
        assert torch.equal(found, expected)
        assert (found - plain).abs().max() > 1e-3


def test_one_timestep_is_needed_to_linearise_at(
    tiny_checkpoint: Path, x_BLYX: torch.Tensor
) -> None:
    denoiser = load(tiny_checkpoint)
    with torch.no_grad():
        point = denoiser.encode(x_BLYX[:1], torch.tensor([300]))
        plain = denoiser.predict(x_BLYX, 300)
        with pytest.raises(ValueError, match="a point of one timestep"):
            denoiser.linearised(point)
        assert torch.equal(denoiser.predict(x_BLYX, 300), plain)
