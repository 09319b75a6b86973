"""What a method that works on one image is asked, and what it answers.

Every method is a function of the Jacobian's products and the regions' masks; which map that is (h
or x_t, at which timestep) is the caller's choice.

Shape suffixes: R regions, K directions, N entries of the image, D of the domain; C, H, W of an
image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lib.discovery.decoder_gradient import ToLatent, as_pixels
from lib.discovery.golub_kahan import Spectrum
from lib.discovery.jacobian import LinearMap
from lib.discovery.joint_basis import JointBasis


@dataclass(frozen=True, slots=True)
class RegionProblem:
    """One image at one timestep."""

    jacobian: LinearMap
    names: tuple[str, ...]
    """Of the regions, for what is said about them."""
    masks_RN: Tensor
    """float32 coverage in [0, 1]."""
    predicted_CHW: Tensor
    """P_t: the image that the network predicts from x_t."""
    seed: int
    to_latent: ToLatent = as_pixels
    """What a change of the image asks of the range of the Jacobian."""
    start: Sequence[Tensor] = ()
    """The directions (K, D) of the neighbouring timestep, for every region; or nothing."""

    def generator(self) -> torch.Generator:
        """A fresh generator on the CPU; the same problem draws the same numbers."""
        return torch.Generator().manual_seed(self.seed)


Method = Callable[[RegionProblem], tuple[Spectrum, ...]]
"""The directions of every region, the best first; none for a region that does not respond. Raises
ValueError where there are none to be had, NotFiniteError and AdjointError.
"""


@dataclass(frozen=True, slots=True)
class Search:
    """How far an iteration goes."""

    count: int
    """Directions per region."""
    tolerance: float
    max_rounds: int


def answered(V_KD: Tensor, basis: JointBasis, mask_N: Tensor, found: Spectrum) -> Spectrum:
    """The spectrum of unit rows `V` in the span of `basis`, the strongest response first.

    S is |diag(m) J v| and U the unit response; angle, convergence and, for all rows, the largest
    residual are those of `found`, the spectrum that V was made from.
    """
    response_KN = mask_N * ((V_KD.to(basis.Q_QD) @ basis.Q_QD.T) @ basis.JQ_QN)
    strength_K = response_KN.norm(dim=1)
    order_K = strength_K.argsort(descending=True, stable=True)
    S_K = strength_K[order_K]
    gap_K = torch.cat([S_K[1:], S_K.new_zeros(1)]) / S_K.clamp_min(1e-30)
    residual_K = S_K.new_full((len(S_K),), max(found.residual_K.tolist(), default=0.0))
    U_KN = response_KN[order_K] / S_K.clamp_min(1e-30)[:, None]
    V_KD = V_KD.to(basis.Q_QD)[order_K]
    return Spectrum(V_KD, S_K, U_KN, residual_K, gap_K, found.angle, found.converged)
