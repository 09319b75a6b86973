"""Adapter for diffusers' `UNet2DModel` and `UNet2DConditionModel`, by capture and replay.

`encode` runs the network once and captures the outputs of its encoder half; `decode` runs the
network's own forward with those modules replaced by what they returned, so a shifted h goes
through the library's own up path and nothing of diffusers is re-implemented. Not thread-safe: the
replacement is on the modules.

Shape suffixes: as in `denoiser`; K tangents, M tokens of a prompt, E entries of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from lib.denoiser import Captured, Point, Shifting, Timestep, epsilon, mapped, slope
from lib.models.autoencoder import PIXELS, ImageSpace
from lib.models.linearisation import Recording, leaves, scale_shifts


class UNetDenoiser:
    """A U-Net in its space of images, with its prompt if it takes one.

    Of a network with a learned variance (twice the channels; Nichol & Dhariwal 2021, eq. 15), the
    first half of the output is the prediction.
    """

    passes = 1

    def __init__(
        self,
        unet: Any,
        alphas_T: Sequence[float],
        prediction_type: str,
        h_layer: str,
        *,
        space: ImageSpace = PIXELS,
        prompt_1ME: Tensor | None = None,
    ) -> None:
        config = unet.config
        self._unet = unet.eval().requires_grad_(False)
        self._alphas_T = alphas_T
        self._prediction_type = prediction_type
        self.device = next(unet.parameters()).device
        self._space = space
        self._prompt_1ME = prompt_1ME
        size = int(config.sample_size)
        self.latent_shape = (int(config.in_channels), size, size)
        self.image_size = size * space.factor
        self.up_blocks = len(unet.up_blocks)
        self._encoder = {"conv_in": unet.conv_in} | {
            f"down_blocks.{i}": block for i, block in enumerate(unet.down_blocks)
        }
        self._deepest = f"down_blocks.{len(unet.down_blocks) - 1}"
        self._h_layer = h_layer
        self._h_module = {
            "before": unet.down_blocks[-1],
            "middle": unet.mid_block.resnets[-1].norm2,
            "after": unet.mid_block,
        }[h_layer]
        with torch.no_grad():
            probe = torch.zeros(1, *self.latent_shape, device=self.device)
            channels, rows, columns = self.encode(probe, 0).h_BCYX.shape[1:]
        self.h_shape = (channels, rows, columns)

    @property
    def network(self) -> Any:
        """The frozen U-Net of diffusers."""
        return self._unet

    def with_network(self, unet: Any) -> UNetDenoiser:
        """Another U-Net of the same architecture in the place of this one, which it freezes."""
        return UNetDenoiser(
            unet,
            self._alphas_T,
            self._prediction_type,
            self._h_layer,
            space=self._space,
            prompt_1ME=self._prompt_1ME,
        )

    def alpha(self, t: Timestep) -> Tensor:
        """alpha_bar (B, 1, 1, 1) or (1, 1, 1, 1), float32, on the device."""
        t_B = torch.as_tensor(t).reshape(-1)
        alpha_B = torch.tensor([self._alphas_T[each] for each in t_B.tolist()])
        return alpha_B.view(-1, 1, 1, 1).to(self.device)

    def latent(self, image_BCHW: Tensor) -> Tensor:
        """Images in [-1, 1] to latents, on the device."""
        return self._space.latent(image_BCHW.to(self.device))

    def image(self, latent_BLYX: Tensor) -> Tensor:
        """The way back; not clamped."""
        return self._space.image(latent_BLYX)

    def predict(self, x_BLYX: Tensor, t: Timestep) -> Tensor:
        """eps(x_t, t), shape of `x_BLYX`."""
        return self._epsilon(self._output(x_BLYX, t, self._prompt_1ME), x_BLYX, t)

    def predict_shifted(self, x_BLYX: Tensor, t: Timestep, shift: Shifting) -> Tensor:
        """eps(x_t, t | h + shift): an ordinary forward with the shift added at h."""

        def add(_module: nn.Module, _args: Any, output: Any) -> Any:
            h_BCYX = self._h_of(output)
            shift_BCYX = shift if isinstance(shift, Tensor) else shift(h_BCYX)
            return self._with_h(output, h_BCYX + shift_BCYX)

        with _hooks([(self._h_module, add)]):
            return self.predict(x_BLYX, t)

    def encode(self, x_BLYX: Tensor, t: Timestep) -> Point:
        """One forward pass; keeps the encoder's outputs, h and eps."""
        captured: dict[str, Captured] = {}
        seen: list[Tensor] = []

        def keep(name: str) -> Any:
            return lambda _module, _args, output: captured.__setitem__(name, output)

        hooks = [(module, keep(name)) for name, module in self._encoder.items()]
        hooks.append((self._h_module, lambda _m, _a, output: seen.append(self._h_of(output))))
        with _hooks(hooks):
            eps_BLYX = self.predict(x_BLYX, t)
        return Point(x_BLYX, t, seen[0], eps_BLYX, captured)

    def decode(self, point: Point, h_BCYX: Tensor) -> Tensor:
        """The network's own forward with the encoder's modules replaced by what they returned.

        Bit-equal to the whole forward for the unshifted h; the modules are themselves again
        afterwards, also after an exception.
        """
        batch = h_BCYX.shape[0]

        def expand(a_B: Tensor) -> Tensor:
            return a_B if a_B.shape[0] == batch else a_B.expand(batch, *a_B.shape[1:])

        replaced = {
            module: mapped(point.encoder[name], expand) for name, module in self._encoder.items()
        }
        if self._h_layer == "before":
            replaced[self._h_module] = self._with_h(replaced[self._h_module], h_BCYX)
        else:
            replaced[self._h_module] = h_BCYX
        x_BLYX = expand(point.x_BLYX)
        with ExitStack() as stack:
            for module, value in replaced.items():
                stack.enter_context(_returning(module, value))
            return self._epsilon(self._output(x_BLYX, point.t, self._prompt_1ME), x_BLYX, point.t)

    def again(self, point: Point) -> tuple[Tensor, Tensor]:
        """(eps, h) of the network's forward with the encoder's modules replaced by what they
        returned, the mid block running: for networks whose later modules compute otherwise now.
        """
        seen: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.append(self._h_of(output))

        h_is_captured = self._h_layer == "before"
        with ExitStack() as stack:
            for name, module in self._encoder.items():
                stack.enter_context(_returning(module, point.encoder[name]))
            if not h_is_captured:
                stack.enter_context(_hooks([(self._h_module, keep)]))
            output_BLYX = self._output(point.x_BLYX, point.t, self._prompt_1ME)
        eps_BLYX = self._epsilon(output_BLYX, point.x_BLYX, point.t)
        return eps_BLYX, point.h_BCYX if h_is_captured else seen[0]

    def linearised(self, point: Point) -> Callable[[Tensor], Tensor]:
        """The decoder half with every module replaced by its derivative at `point`.

        Exact for networks whose nonlinear functions are modules; see `linearisation`.
        """
        unet = self._unet
        ends = (unet.conv_norm_out, unet.conv_act, unet.conv_out)
        roots = [*unet.up_blocks, *(module for module in ends if module is not None)]
        if self._h_layer != "after":
            roots = [unet.mid_block, *roots]
        frozen = {*self._encoder.values(), self._h_module, unet.time_embedding}
        recording = Recording(
            (m for m in dict.fromkeys(leaves(roots)) if m not in frozen), scale_shifts(roots)
        )
        embedding: list[Tensor] = []
        prompt_1ME = self._prompt_1ME
        listen = unet.time_embedding.register_forward_hook(
            lambda _module, _args, output: embedding.append(output)
        )
        try:
            with torch.no_grad(), recording:
                self.decode(point, point.h_BCYX)
        finally:
            listen.remove()
        if not isinstance(point.t, int):
            raise ValueError("expected a point of one timestep to linearise at")
        scale = slope(self._alphas_T[point.t], self._prediction_type)

        def product(tangent_KCYX: Tensor) -> Tensor:
            count = len(tangent_KCYX)

            def zero(a_B: Tensor) -> Tensor:
                return a_B.new_zeros(()).expand(count, *a_B.shape[1:])

            replaced = {m: mapped(point.encoder[name], zero) for name, m in self._encoder.items()}
            replaced[unet.time_embedding] = zero(embedding[0])
            if self._h_layer == "before":
                replaced[self._h_module] = self._with_h(replaced[self._h_module], tangent_KCYX)
            else:
                replaced[self._h_module] = tangent_KCYX
            with ExitStack() as stack:
                for module, value in replaced.items():
                    stack.enter_context(_returning(module, value))
                stack.enter_context(recording.replayed())
                nothing = None if prompt_1ME is None else torch.zeros_like(prompt_1ME)
                return self._output(zero(point.x_BLYX), point.t, nothing) * scale

        return product

    def bottleneck(self, x_BLYX: Tensor, t: int) -> Tensor:
        """h at (x_t, t): the forward is left as soon as h is known."""
        seen: list[Tensor] = []

        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            seen.append(self._h_of(output))
            raise _Reached

        with _hooks([(self._h_module, leave)]), suppress(_Reached):
            self._output(x_BLYX, t, self._prompt_1ME)
        return seen[0]

    def features(self, x_BLYX: Tensor, t: int, blocks: Sequence[int]) -> tuple[Tensor, ...]:
        """Outputs of up blocks; the forward is left behind the last of them."""
        seen: dict[int, Tensor] = {}

        def keep(number: int) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                seen[number] = output[0] if isinstance(output, tuple) else output
                if number == max(blocks):
                    raise _Reached

            return hook

        hooks = [(self._unet.up_blocks[number], keep(number)) for number in blocks]
        with torch.no_grad(), _hooks(hooks), suppress(_Reached):
            self._output(x_BLYX, t, self._prompt_1ME)
        return tuple(seen[number] for number in blocks)

    def contiguous(self) -> AbstractContextManager[None]:
        """Attention leaves its output transposed; inside, it is copied. Rounding may differ."""
        attention = [m for m in self._unet.modules() if isinstance(m, Attention)]
        return _hooks([(m, lambda _m, _a, output: output.contiguous()) for m in attention])

    def _output(self, x_BLYX: Tensor, t: Timestep, prompt_1ME: Tensor | None) -> Tensor:
        """The network's own forward."""
        told = {}
        if prompt_1ME is not None:
            told["encoder_hidden_states"] = prompt_1ME.expand(x_BLYX.shape[0], -1, -1)
        output_BLYX: Tensor = self._unet(x_BLYX, t, **told).sample
        return output_BLYX[:, : self.latent_shape[0]]

    def _h_of(self, output: Any) -> Tensor:
        h_BCYX: Tensor = output[0] if self._h_layer == "before" else output
        return h_BCYX

    def _with_h(self, output: Any, h_BCYX: Tensor) -> Any:
        return (h_BCYX, *output[1:]) if self._h_layer == "before" else h_BCYX

    def _epsilon(self, output_BLYX: Tensor, x_BLYX: Tensor, t: Timestep) -> Tensor:
        alpha = self.alpha(t) if isinstance(t, Tensor) else self._alphas_T[t]
        return epsilon(output_BLYX, x_BLYX, alpha, self._prediction_type)


class _Reached(Exception):
    """What was asked for is known; the rest of the forward is not needed."""


@contextmanager
def _hooks(hooks: Sequence[tuple[nn.Module, Any]]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _returning(module: nn.Module, value: Any) -> Iterator[None]:
    """Let `module` return `value` without running."""
    module.forward = lambda *_args, **_kwargs: value
    try:
        yield
    finally:
        del module.forward
