"""Network evaluations of decoding, for a plan: of edits, of those by which references are met, and
of reconstructions. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence

from lib.directions.edit_query import Choice
from lib.directions.library_facts import LibraryFact
from lib.editors.editor_record import EVALUATIONS, NETWORK_SPACE
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


def mean_edit_evaluations(
    config: RunConfig,
    timesteps: tuple[int, ...],
    nodes: range,
    work: DiscoveryWork,
    choices: Sequence[Choice],
) -> float:
    """Of decoding one edit, mean over all that a plan means: learned editors that change the
    network see every step of their window beside the frozen one.
    """
    editors = dict(enumerate(work.editors))
    plain = edit_evaluations(config, nodes, work)
    total = 0
    for choice in choices:
        networks = [editors[place] for place, _ in choice if _is_network(editors.get(place))]
        if not networks:
            total += plain
            continue
        acting = [n for n in nodes if any(_acts(fact, timesteps[n - 1]) for fact in networks)]
        calls = step_evaluations(config.invert.method)
        more = calls * sum(
            EVALUATIONS[fact.type]
            for n in nodes
            for fact in networks
            if _acts(fact, timesteps[n - 1])
        )
        if len(networks) == len(choice):
            total += calls * acting[0] + more
        else:  # its own encoder pass where it leaves the reconstruction
            again = len(acting) if config.edit.injection == "symmetric" else 0
            total += plain + 1 + calls * again + more
    return total / len(choices) if choices else 0.0


def _is_network(fact: LibraryFact | None) -> bool:
    return fact is not None and fact.space == NETWORK_SPACE


def _acts(fact: LibraryFact, t: int) -> bool:
    return fact.window is None or fact.window[1] <= t <= fact.window[0]


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
