"""A classifier's answer as the objective: one of its outputs changes by, or to, a number, and the
others stay.

Shape suffixes: B batch, C colours, H rows, W columns, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lib.models.classifier_network import ClassifierNetwork, scores_of
from lib.models.transformers_folder import name_index
from lib.objectives.prediction import Prediction, as_promised
from lib.objectives.wishes import By, To, Wish, refuse_unfit_wish


@dataclass(frozen=True, slots=True)
class Attribute:
    """For a regression (s - wished)^2; for classes the cross-entropy of the wished probability: the
    negative log-likelihood of the class for 1, of its absence for 0.

    Raises ConfigProblem for an output that is not there, and a wish that its kind cannot have.
    """

    classifier: ClassifierNetwork
    """With `outputs` of images in [-1, 1]."""
    output: str
    """Name of the output that should change."""
    wish: Wish
    keep: float = 0.0
    """Weight of the mean squared change of all other scores (probabilities of classes) since the
    plain prediction.
    """
    name: str = "attribute"

    def __post_init__(self) -> None:
        name_index(self.classifier.names, self.output)
        refuse_unfit_wish(self.classifier.answer, self.wish)

    def __call__(self, prediction: Prediction) -> Tensor:
        """(B,)."""
        column, answer = name_index(self.classifier.names, self.output), self.classifier.answer
        outputs_BK = self.classifier.outputs(prediction.edited_BCHW)
        with torch.no_grad():
            plain_BK = self.classifier.outputs(prediction.plain_BCHW)
        change_BK = scores_of(outputs_BK, answer) - scores_of(plain_BK, answer)
        match self.wish:
            case By(amount):
                loss_B = (change_BK[:, column] - amount).square()
            case To(value) if answer == "regression":
                loss_B = (outputs_BK[:, column] - value).square()
            case To(value):
                logit_B = outputs_BK[:, column]
                if answer == "single_label":
                    # log p - log(1 - p) of a softmax, so that neither logarithm meets a zero.
                    logit_B = logit_B - _others(outputs_BK, column).logsumexp(dim=1)
                wished_B = torch.full_like(logit_B, value)
                loss_B = binary_cross_entropy_with_logits(logit_B, wished_B, reduction="none")
        if self.keep and change_BK.shape[1] > 1:
            loss_B = loss_B + self.keep * _others(change_BK, column).square().mean(dim=1)
        return as_promised(loss_B, prediction)


def _others(values_BK: Tensor, column: int) -> Tensor:
    return torch.cat([values_BK[:, :column], values_BK[:, column + 1 :]], dim=1)
