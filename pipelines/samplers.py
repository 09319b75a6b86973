"""From the sections `invert` and `edit` to the sampler of a run."""

from __future__ import annotations

from lib.sampling.bdia import BdiaSampler
from lib.sampling.ddim_sampler import DdimSampler
from lib.sampling.ddpm_inversion import DdpmSampler
from lib.sampling.edict import EdictSampler
from lib.sampling.eta import EtaSchedule
from lib.sampling.sampler import Sampler
from pipelines.config import RunConfig


def build_sampler(config: RunConfig) -> Sampler:
    """The way up and down that the config asks for."""
    invert = config.invert
    match invert.method:
        case "ddim":
            return DdimSampler(invert.refinements, config.edit.boost_below)
        case "edict":
            return EdictSampler(invert.mixing)
        case "bdia":
            return BdiaSampler(invert.gamma)
        case "ddpm":
            return DdpmSampler(EtaSchedule(invert.eta_points))
