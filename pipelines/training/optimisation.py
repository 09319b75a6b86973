"""The optimizer of a training and its learning rate, which is a function of the step."""

from __future__ import annotations

from math import cos, pi

import torch
from torch import nn

from pipelines.training.config import TrainConfig


def make_optimizer(config: TrainConfig, editor: nn.Module) -> torch.optim.Optimizer:
    """Of what of the editor is trained."""
    parameters = [p for p in editor.parameters() if p.requires_grad]
    rate, decay = config.editor.learning_rate, config.training.weight_decay
    if config.training.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay)
    return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)


def learning_rate(config: TrainConfig, step: int) -> float:
    """At a step, from 0."""
    schedule, peak = config.training, config.editor.learning_rate
    if schedule.decay == "cosine":
        return peak * 0.5 * (1 + cos(pi * step / schedule.steps))
    if schedule.decay == "step":
        return float(peak * schedule.decay_factor ** (step // schedule.decay_every))
    return peak
