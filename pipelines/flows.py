"""Which flow a config means."""

from __future__ import annotations

from lib.ledger.run_folder import RunFolder
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.direction_library import FindDirections, LearnDirections
from pipelines.edit_dataset import EditDataset
from pipelines.engine import Engine, load_engine, load_model
from pipelines.latent_storing import build_latent_storing
from pipelines.library_stages import build_finding_stages, build_learning_stages
from pipelines.region_model import build_region_learning
from pipelines.sdedit_dataset import build_sdedit
from pipelines.shard_flow import Flow
from pipelines.stages import build_stages
from pipelines.study_config import DatasetDiscovery
from pipelines.worker_flow import FlowMaker


def load_flow(config: RunConfig, folder: RunFolder, backlog: Backlog) -> FlowMaker:
    """Load the config's model, once for all flows that are made around it.

    Raises:
        ModelProblem: the checkpoint cannot be used.
    """
    if config.pipeline == "region_model":
        denoiser, _, model = load_model(config)
        return lambda config: build_region_learning(config, denoiser, model, backlog)
    engine = load_engine(config, folder)
    return lambda config: _build(config, engine, backlog)


def _build(config: RunConfig, engine: Engine, backlog: Backlog) -> Flow:
    """The stages, with the models that they need beside the diffusion model.

    Raises:
        ModelProblem: one of those cannot be used.
        ConfigProblem: the config asks for what this model or library cannot do.
    """
    if config.pipeline == "store_latents":
        return build_latent_storing(config, engine)
    if isinstance(config.discover, DatasetDiscovery):
        return LearnDirections(build_learning_stages(config, config.discover, engine))
    if config.pipeline == "direction_library":
        return FindDirections(config, build_finding_stages(config, engine))
    if config.edit.method == "sdedit":
        return build_sdedit(config, engine, backlog)
    return EditDataset(config, build_stages(config, engine), backlog)
