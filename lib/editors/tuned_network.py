"""Other weights of the same U-Net, the baseline of DiffusionCLIP (Kim et al. 2022): all of them, or
low-rank updates (LoRA, Hu et al. 2022) by peft. The frozen network is copied, never changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib.problems import ConfigProblem

WHOLE, LORA = "whole", "lora"
_LINEAR = {"attention": (nn.Linear,), "convolutions": (nn.Conv2d,)}


@dataclass(frozen=True, slots=True)
class Tuning:
    """What of the network is trained."""

    kind: str
    """whole, or lora."""
    rank: int = 0
    scale: float = 1.0
    """Of the updates: alpha / rank."""
    layers: str = "all"
    """attention, convolutions or all; of lora."""
    dropout: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def tunable_copy(unet: Any, tuning: Tuning) -> Any:
    """A copy of a diffusers U-Net with trainable weights; those of LoRA begin as no change.

    Raises:
        ConfigProblem: peft is not installed, or there is nothing of the kind to update.
    """
    copied = copy.deepcopy(unet)
    if tuning.kind == WHOLE:
        return copied.requires_grad_(True)
    copied.requires_grad_(False)
    return _with_lora(copied, tuning)


def tuned_weights(tuned: Any, frozen: Any, tuning: Tuning) -> dict[str, Tensor]:
    """What an artifact holds: of a whole network the differences to the frozen one, of LoRA the
    matrices of the updates under peft's names.
    """
    if tuning.kind == LORA:
        from peft import get_peft_model_state_dict

        found: dict[str, Tensor] = get_peft_model_state_dict(tuned)
        return {name: value.detach() for name, value in found.items()}
    before = dict(frozen.named_parameters())
    return {name: (p - before[name]).detach() for name, p in tuned.named_parameters()}


def with_weights(unet: Any, tuning: Tuning, weights: Mapping[str, Tensor], where: str) -> Any:
    """A frozen copy of the U-Net with the weights of an artifact; updates of LoRA are merged.

    Raises:
        ConfigProblem: they do not fit this network; `where` begins the message.
    """
    if tuning.kind == LORA:
        from peft import set_peft_model_state_dict

        tuned = tunable_copy(unet, tuning)
        own = {name: value.float() for name, value in weights.items()}
        try:
            left: Any = set_peft_model_state_dict(tuned, own)
        except RuntimeError as error:
            raise ConfigProblem(f"{where}: the updates do not fit: {error}") from error
        if left.unexpected_keys:
            raise ConfigProblem(
                f"{where}: updates of layers that this network lacks: {left.unexpected_keys[:4]}"
            )
        return tuned.requires_grad_(False)
    tuned = copy.deepcopy(unet)
    named = dict(tuned.named_parameters())
    odd = sorted(set(named) ^ set(weights)) or [
        name for name, p in named.items() if p.shape != weights[name].shape
    ]
    if odd:
        raise ConfigProblem(
            f"{where}: expected differences of this network's weights; odd: {odd[:4]}"
        )
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.add_(weights[name].to(parameter))
    return tuned.requires_grad_(False)


def _with_lora(unet: Any, tuning: Tuning) -> Any:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigProblem(
            "editor.kind: lora needs peft, which is not installed; expected"
            " `pip install 'deltah[lora]'`"
        ) from error
    kinds = [k for name, ks in _LINEAR.items() if tuning.layers in (name, "all") for k in ks]
    names = [name for name, module in unet.named_modules() if type(module) in kinds]
    if tuning.layers == "attention":
        names = [name for name in names if "attention" in name or "attn" in name]
    if not names:
        raise ConfigProblem(f"editor.layers: the network has no layers of {tuning.layers}")
    alpha: Any = tuning.scale * tuning.rank  # of any real number, whatever its annotation says
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=alpha,
        target_modules=names,
        lora_dropout=tuning.dropout,
    )
    return inject_adapter_in_model(config, unet)
