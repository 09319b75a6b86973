"""The worker that holds one model: the same class on a cluster and in this process."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from lib.ledger.run_folder import RunFolder
from lib.models.kernels import settle
from lib.receipts import ShardReport, ShardTask
from pipelines.backlog import Backlog
from pipelines.config import RunConfig
from pipelines.fingerprint_fields import pixel_fingerprint
from pipelines.flows import load_flow
from pipelines.perceptual_window import resolved
from pipelines.shard_pipeline import ShardPipeline
from pipelines.worker_flow import FlowMaker, WorkerFlow
from pipelines.worker_threads import DECODERS, ENCODERS, backlog_limit

_log = logging.getLogger(__name__)


class ShardWorker:
    """Loads the model once and processes shards; two `run` calls at once overlap.

    Raises on construction `lib.problems.Problem` for a checkpoint or library that cannot be used.
    """

    def __init__(
        self,
        config_json: str,
        fingerprint: str,
        load: Callable[[RunConfig, RunFolder, Backlog], FlowMaker] = load_flow,
    ) -> None:
        config = RunConfig.model_validate_json(config_json)
        settle(config.model.cpu_threads)
        folder = RunFolder(config.output.folder)
        config = resolved(config, folder)
        self._steps = itertools.count(1)
        self._done = 0
        backlog = Backlog(ThreadPoolExecutor(ENCODERS, "encode"), backlog_limit(config))
        self._pipeline = ShardPipeline(
            config,
            fingerprint,
            pixel_fingerprint(folder.read_run()["fields"]),
            folder,
            WorkerFlow(config, load(config, folder, backlog)),
            decoders=ThreadPoolExecutor(DECODERS, "decode"),
            backlog=backlog,
            progress=self._advance,
        )

    def run(self, task: ShardTask) -> ShardReport:
        """Process one shard; see `ShardPipeline.run_shard` for what it raises."""
        report = self._pipeline.run_shard(task)
        _log.info(
            "%s: %s, %d in, %d ok, %d errors, %d edits, %d directions, read %.2f s, model %.2f s"
            " (stood free %.2f s before, waited %.2f s: %.1f %% of its time), write %.2f s",
            report.shard,
            report.outcome,
            report.n_in,
            report.n_ok,
            report.n_err,
            report.n_edits,
            report.n_directions,
            report.read_s,
            report.model_s,
            report.idle_s,
            report.wait_s,
            100 * report.wait_share,
            report.write_s,
        )
        return report

    def cancel(self, shard: str) -> None:
        """Stop a shard that `run` works on, from another thread; see `ShardPipeline.cancel`."""
        self._pipeline.cancel(shard)

    def images_done(self) -> int:
        """A number that grows with every stage of every image: the heartbeat."""
        return self._done

    def _advance(self) -> None:
        self._done = next(self._steps)
