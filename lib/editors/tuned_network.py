"""Other weights of the same U-Net, the baseline of DiffusionCLIP (Kim et al. 2022): all of them, or
low-rank updates (LoRA, Hu et al. 2022) by peft. The frozen network is copied, never changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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
    """What an artifact holds: of a whole network the weights that are others than the frozen one's
    (themselves: differences would come back rounded), of LoRA the matrices of the updates under
    peft's names.
    """
    if tuning.kind == LORA:
        return _updates(tuned)
    before = dict(frozen.named_parameters())
    return {
        name: p.detach() for name, p in tuned.named_parameters() if not torch.equal(p, before[name])
    }


def with_weights(unet: Any, tuning: Tuning, weights: Mapping[str, Tensor], where: str) -> Any:
    """A frozen copy of the U-Net with the weights of an artifact; updates of LoRA are merged.

    Raises:
        ConfigProblem: they do not fit this network; `where` begins the message.
    """
    tuned = copy.deepcopy(unet)
    named = dict(tuned.named_parameters())
    if tuning.kind == LORA:
        updated = tunable_copy(unet, tuning)
        _refuse_odd(
            weights, _updates(updated), sorted(set(_updates(updated)) - set(weights)), where
        )
        for name, change in _merged(updated, weights).items():
            named[name].data.add_(change)
    else:
        _refuse_odd(weights, named, [], where)
        for name, value in weights.items():
            named[name].data.copy_(value)
    return tuned.requires_grad_(False)


def _refuse_odd(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor], lacking: Sequence[str], where: str
) -> None:
    odd = lacking or [n for n, v in weights.items() if n not in own or v.shape != own[n].shape]
    if odd:
        raise ConfigProblem(
            f"{where}: expected weights or updates of this network's layers; odd: {sorted(odd)[:4]}"
        )


def _updates(tuned: Any) -> dict[str, Tensor]:
    from peft import get_peft_model_state_dict

    found: dict[str, Tensor] = get_peft_model_state_dict(tuned)
    return {name: value.detach() for name, value in found.items()}


def _merged(tuned: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the updates add to the weights of the layers, by the names of these."""
    from peft import set_peft_model_state_dict
    from peft.tuners.lora import Conv2d, Linear

    set_peft_model_state_dict(tuned, {name: value.float() for name, value in weights.items()})
    return {
        f"{name}.weight": layer.get_delta_weight("default").detach()
        for name, layer in tuned.named_modules()
        if isinstance(layer, (Conv2d, Linear))
    }


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
