import pytest
import torch
from diffusers.models.activations import GEGLU
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from lib.models import attention_tangent
from lib.models.linearisation import Recording


def tensors(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for _ in range(3)]


@pytest.mark.parametrize("chunk", [10**9, 1])
def test_the_derivative_of_attention_is_that_of_forward_mode(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_tangent, "_MAX_ENTRIES", chunk)
    q, k, v = tensors(1, 2, 5, 4)
    k, v = torch.cat([k, k[:, :, :2] + 1], 2), torch.cat([v, v[:, :, :2] - 1], 2)
    dq = torch.randn(3, *q.shape[1:], dtype=torch.float64)
    dk, dv = (torch.randn(3, *a.shape[1:], dtype=torch.float64) for a in (k, v))
    found = attention_tangent.attention_tangent(q, k, v)(dq, dk, dv)
    for row in range(3):
        rows = tuple(a[row, None] for a in (dq, dk, dv))
        with sdpa_kernel(SDPBackend.MATH):
            _, expected = torch.func.jvp(scaled_dot_product_attention, (q, k, v), rows)
        torch.testing.assert_close(found[row, None], expected)


@pytest.mark.parametrize(
    "module", [GEGLU(6, 5), torch.nn.LayerNorm(6), torch.nn.LayerNorm((3, 6)), torch.nn.SiLU()]
)
def test_the_derivative_of_a_module_is_that_of_forward_mode(module: torch.nn.Module) -> None:
    module = module.double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    x_BNC, v_BNC, _ = tensors(1, 3, 6)
    recording = Recording([module])
    with recording:
        module(x_BNC)
    with recording.replayed():
        found = module(torch.cat([v_BNC, 2 * v_BNC]))
    _, expected = torch.func.jvp(module, (x_BNC,), (v_BNC,))
    torch.testing.assert_close(found, torch.cat([expected, 2 * expected]))


def test_attention_is_itself_again_outside() -> None:
    q, k, v = tensors(1, 2, 5, 4)
    before = scaled_dot_product_attention(q, k, v)
    recorder = attention_tangent.AttentionRecorder()
    with recorder:
        assert torch.equal(scaled_dot_product_attention(q, k, value=v), before)
    assert len(recorder.calls) == 1
    with attention_tangent.AttentionReplay(recorder.calls):
        zero = scaled_dot_product_attention(*(torch.zeros_like(a) for a in (q, k, v)))
    assert not zero.any()
    assert torch.equal(scaled_dot_product_attention(q, k, v), before)
