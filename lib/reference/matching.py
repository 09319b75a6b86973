"""How far to go along which vectors of a basis, so that the edited image meets a target: damped
Gauss-Newton with finite edits in the loop.

The linear response says which combination of the basis makes the wanted change at one timestep; a
finite edit, shifted at many, does more and something else. So every round edits the image, and what
the edits did corrects the response (Broyden 1965).

Shape suffixes: N entries of the image, Q basis columns, T trials.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.discovery.jacobian import Products
from lib.reference.trials import FIRST, LATER

Apply = Callable[[Tensor], Tensor]
"""What edits change: combinations (T, Q) of the basis to changes of the image (T, N)."""

RIDGE = 1e-3
"""Of each step, as a share of the largest squared response: directions that answer far more weakly
are left out for as long as there are few rounds, which keeps strengths small.
"""
_FARTHEST = 3
"""How often the first trials are moved beyond their end."""
_SETTLED = 0.01
"""A round that takes less than this share of what is left off it gains nothing."""
_QUIET = 2
"""Rounds in succession that gain nothing, and the search ends: after one alone the response has
still been corrected.
"""


@dataclass(frozen=True, slots=True)
class Approach:
    """How a direction towards a reference is looked for."""

    basis: int
    """Columns of the Krylov basis of every region."""
    rounds: int
    """Of Gauss-Newton, each with finite edits."""
    outside: float
    """What a squared change outside the region counts."""
    products: Products = "linearised"
    chunk: int = 8
    """Edits decoded together."""


@dataclass(frozen=True, slots=True)
class Weights:
    """What is wanted of a change of the image."""

    target_N: Tensor
    """The wanted change inside the region; outside none is."""
    mask_N: Tensor
    """Coverage of the region in [0, 1]."""
    outside: float
    """What a squared change outside counts, against one of 1 inside."""

    @property
    def weight_N(self) -> Tensor:  # noqa: N802, a tensor
        """sqrt(m^2 + mu (1 - m)^2)."""
        return (self.mask_N**2 + self.outside * (1 - self.mask_N) ** 2).sqrt()

    @property
    def wanted_N(self) -> Tensor:  # noqa: N802, a tensor
        """The weighted change that is wanted."""
        return self.weight_N * self.mask_N * self.target_N


@dataclass(frozen=True, slots=True)
class Matched:
    """The best combination that was tried."""

    c_Q: Tensor
    """Its coefficients, float64."""
    explained: float
    """1 - |W (change - m d)|^2 / |W m d|^2 of the finite edit: 1 where it meets the target, 0 where
    it is no nearer than the unedited image.
    """
    linear: float
    """The same of the linear response with the least squares solution: what the basis offers."""
    gain: float
    """Share of what was left that the last round took off."""
    converged: bool
    """Whether the last two rounds gained nothing: less than a hundredth each."""


def matched(
    response_QN: Tensor, weights: Weights, apply: Apply, *, scale: float, rounds: int
) -> Matched:
    """min over c of |W (f(c) - m d)|^2, f(c) the change that the edit by c makes.

    f is first taken as `scale` times the linear response c^T `response`, then as what the edits
    show: A <- A + (df - dc A) dc^T / |dc|^2. A round solves (A A^T + ridge s_1^2 I) dc = A r for
    the residual r, edits at a few parts of dc and keeps the best.

    Raises:
        ValueError: nothing that was tried brings the image nearer to the target.
    """
    weight_N, wanted_N = weights.weight_N.double(), weights.wanted_N.double()
    A_QN = response_QN.double() * weight_N
    whole = float(wanted_N @ wanted_N)
    linear_Q = _solved(A_QN, wanted_N)
    linear = 1 - float((wanted_N - linear_Q @ A_QN).square().sum()) / whole
    A_QN = A_QN * scale
    best = _Trial(torch.zeros_like(linear_Q), torch.zeros_like(wanted_N), whole)
    gain, quiet = 1.0, 0

    def tried(step_Q: Tensor, parts: Sequence[float]) -> list[_Trial]:
        c_TQ = best.c_Q + torch.tensor(parts).to(step_Q)[:, None] * step_Q
        change_TN = apply(c_TQ).double() * weight_N
        left_T = (change_TN - wanted_N).square().sum(1).tolist()
        return [_Trial(*t) for t in zip(c_TQ, change_TN, left_T, strict=True)]

    for round_ in range(rounds):
        step_Q = _solved(A_QN, wanted_N - best.change_N)
        if not bool(step_Q.any()):
            break
        trials = _far_enough(tried, step_Q) if round_ == 0 else tried(step_Q, LATER)
        found = min(trials, key=lambda trial: trial.left)
        dc_Q, df_N = found.c_Q - best.c_Q, found.change_N - best.change_N
        if round_ == 0:
            foreseen_N = dc_Q @ A_QN
            A_QN = A_QN * _ratio(df_N, foreseen_N)
        A_QN = A_QN + torch.outer(dc_Q, df_N - dc_Q @ A_QN) / (dc_Q @ dc_Q)
        gain = max(0.0, 1 - found.left / best.left)
        if found.left < best.left:
            best = found
        quiet = quiet + 1 if gain < _SETTLED else 0
        if quiet == _QUIET:
            break
    if best.left >= whole:
        raise ValueError("no edit brings the region nearer to the reference")
    return Matched(best.c_Q, 1 - best.left / whole, linear, gain, quiet == _QUIET)


@dataclass(frozen=True, slots=True)
class _Trial:
    c_Q: Tensor
    change_N: Tensor
    """Weighted."""
    left: float
    """The squared distance to the target."""


def _far_enough(
    tried: Callable[[Tensor, Sequence[float]], list[_Trial]], step_Q: Tensor
) -> list[_Trial]:
    """Trials around a step whose length is a guess, until the best of all is at no end."""
    parts = list(FIRST)
    trials = tried(step_Q, parts)
    for _ in range(_FARTHEST):
        best = min(range(len(trials)), key=lambda t: trials[t].left)
        ratio = FIRST[-1] / FIRST[0] * 2
        if best == len(parts) - 1:
            more = [part * ratio for part in parts[-len(FIRST) :]]
            trials, parts = [*trials, *tried(step_Q, more)], [*parts, *more]
        elif best == 0:
            more = [part / ratio for part in parts[: len(FIRST)]]
            trials, parts = [*tried(step_Q, more), *trials], [*more, *parts]
        else:
            break
    return trials


def _ratio(seen_N: Tensor, foreseen_N: Tensor) -> float:
    """How much more there is than was foreseen; 1 where it goes another way altogether."""
    ratio = float((seen_N @ foreseen_N) / (foreseen_N @ foreseen_N))
    return ratio if ratio > 0 else 1.0


def _solved(A_QN: Tensor, r_N: Tensor) -> Tensor:
    """min |A^T dc - r|^2 + ridge |dc|^2."""
    gram_QQ = A_QN @ A_QN.T
    top = float(torch.linalg.eigvalsh(gram_QQ)[-1])
    if top <= 0:
        return torch.zeros_like(A_QN[:, 0])
    ridge_QQ = RIDGE * top * torch.eye(len(gram_QQ)).to(gram_QQ)
    step_Q: Tensor = torch.linalg.solve(gram_QQ + ridge_QQ, A_QN @ r_N)
    return step_Q
