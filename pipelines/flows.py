"""Which flow a config means."""

from __future__ import annotations

from concurrent.futures import Executor

from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.direction_library import FindDirections, LearnDirections
from pipelines.edit_dataset import EditDataset
from pipelines.latent_storing import build_latent_storing
from pipelines.library_stages import build_finding_stages, build_learning_stages
from pipelines.region_model import build_region_learning
from pipelines.sdedit_dataset import build_sdedit
from pipelines.shard_pipeline import Flow
from pipelines.stages import build_stages
from pipelines.study_config import DatasetDiscovery


def build_flow(config: RunConfig, folder: RunFolder, *, pool: Executor) -> Flow:
    """Load the models of the config's pipeline and chain its stages.

    Raises:
        ModelProblem: the checkpoint or the classifier cannot be used.
        ConfigProblem: the config asks for what this model or library cannot do.
    """
    if config.pipeline == "region_model":
        return build_region_learning(config, pool=pool)
    if config.pipeline == "store_latents":
        return build_latent_storing(config, folder)
    if isinstance(config.discover, DatasetDiscovery):
        return LearnDirections(build_learning_stages(config, config.discover, folder))
    if config.pipeline == "direction_library":
        return FindDirections(config, build_finding_stages(config, folder))
    if config.edit.method == "sdedit":
        return build_sdedit(config, folder, pool=pool)
    return EditDataset(config, build_stages(config, folder), pool=pool)
