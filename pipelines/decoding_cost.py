"""Network evaluations of decoding, for a plan: of edits, of those by which references are met, and
of reconstructions. No torch here.
"""

from __future__ import annotations

from lib.reference.trials import trials
from lib.sampling.evaluations import step_evaluations
from lib.sampling.grid import edited_nodes
from pipelines.config import RunConfig
from pipelines.discovery_work import DiscoveryWork
from pipelines.model_source import conditioning_of
from pipelines.reference_config import ReferenceDiscovery
from pipelines.stored_runs import latent_needs


def edit_evaluations(config: RunConfig, nodes: range, work: DiscoveryWork) -> int:
    """Of decoding one edit, which leaves the reconstruction where it first acts: only the decoder
    half runs there, but where a step sees the network twice, it has left it by then.
    """
    edit, calls = config.edit, step_evaluations(config.invert.method)
    if work.space == "x":  # moved before the network sees it
        guided = 2 * edit.guidance_steps if edit.x_edit == "guidance" else 0
        return guided * len(work.nodes) + calls * max(work.nodes)
    acting = list(nodes)
    if edit.reach == "found" and work.nodes:
        acting = sorted(set(nodes) & set(work.nodes), reverse=True)
    both = 2 if edit.injection == "asymmetric" else 1
    return 1 + both * (calls * len(acting) - 1) + calls * (acting[0] - len(acting))


def search_evaluations(config: RunConfig, timesteps: tuple[int, ...], work: DiscoveryWork) -> int:
    """Network evaluations an image of the finite edits by which references are met, in at most so
    many rounds.
    """
    discover = config.discover
    if not isinstance(discover, ReferenceDiscovery):
        return 0
    nodes = edited_nodes(timesteps, config.edit.window)
    regions = len(config.segment.regions)
    edits = regions * trials(discover.rounds)
    plain = step_evaluations(config.invert.method) * nodes[0] * (1 + regions * discover.rounds)
    edited = edit_evaluations(config, nodes, work) * edits
    return conditioning_of(config.model).passes * (plain + edited + 1)


def reconstruction_evaluations(config: RunConfig, timesteps: tuple[int, ...]) -> int:
    """Network evaluations an image of `invert.report`."""
    if not config.invert.report:
        return 0
    calls = step_evaluations(config.invert.method) * latent_needs(config, timesteps).last
    return conditioning_of(config.model).passes * calls
