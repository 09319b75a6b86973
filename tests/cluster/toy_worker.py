"""A worker without a model: each input file says in JSON what happens to it. Commits are real."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from lib.files import schemas
from lib.files.samples import ShardDamage
from lib.ledger.commit import ShardResult, commit
from lib.ledger.run_folder import RunFolder
from lib.problems import ModelProblem
from lib.receipts import Failure, ShardCancelled, ShardReport, ShardTask


class ToyWorker:
    """Keys of an input: `do`, `seconds` (before it), `samples`."""

    def __init__(self, config_json: str, fingerprint: str) -> None:
        self._folder = RunFolder(json.loads(config_json)["output"]["folder"])
        self._fingerprint = fingerprint
        self._done = 0
        self._lock = threading.Lock()
        self._cancelled: set[str] = set()

    def run(self, task: ShardTask) -> ShardReport:
        order = json.loads(Path(task.url).read_text())
        starts = Path(task.url).parent / "starts"
        starts.mkdir(exist_ok=True)
        with self._lock, (starts / task.shard).open("a") as file:
            file.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')}\n")
        self._wait(task.shard, order.get("seconds", 0.0))
        match order.get("do", "commit"):
            case "raise":
                raise ValueError("a shard that raises")
            case "exit":
                os._exit(1)
            case "sys_exit":
                sys.exit(0)
            case "hang":
                time.sleep(3600)
            case "damage":
                raise ShardDamage("truncated", "cut at a member's border")
            case "full":
                raise OSError(28, "No space left on device", f"{self._folder.root}/images/x.tar")
            case "forbidden":
                raise PermissionError(13, "Permission denied", f"{self._folder.root}/images/x.tar")
        return self._commit(task, order.get("samples", 2))

    def images_done(self) -> int:
        return self._done

    def cancel(self, shard: str) -> None:
        self._cancelled.add(shard)

    def _wait(self, shard: str, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if shard in self._cancelled:
                self._cancelled.discard(shard)
                raise ShardCancelled(f"shard {shard} was stopped on the driver's order")
            time.sleep(0.05)
            self._done += 1

    def _commit(self, task: ShardTask, samples: int) -> ShardReport:
        failures = [Failure(task.shard, i, str(i), "decode", "toy", "-") for i in range(samples)]
        result = ShardResult(
            shard=task.shard,
            n_in=samples,
            input_size=1,
            input_sha256="0" * 64,
            images=b"",
            rows=schemas.EDITS.empty_table(),
            directions=None,
            failures=failures,
        )
        outcome = commit(self._folder, result, self._fingerprint)
        self._done += samples
        return ShardReport(
            shard=task.shard,
            attempt=task.attempt,
            outcome=outcome,
            n_in=samples,
            n_ok=0,
            n_err=samples,
            n_edits=0,
            bytes_in=1,
            bytes_out=1,
            read_s=0.25,
            model_s=1.0,
            wait_s=0.125,
            write_s=0.5,
            host="h",
            idle_s=0.25,
            error_kinds={"toy": samples} if samples else {},
        )


class RefusingWorker(ToyWorker):
    """The model cannot be used."""

    def __init__(self, config_json: str, fingerprint: str) -> None:
        raise ModelProblem("expected a UNet2DModel, got a toaster")


class BrokenWorker(ToyWorker):
    """It cannot be made on this machine."""

    def __init__(self, config_json: str, fingerprint: str) -> None:
        raise OSError("no such accelerator")


class PickyWorker(ToyWorker):
    """It cannot be made on the machines that a file beside the inputs names."""

    def __init__(self, config_json: str, fingerprint: str) -> None:
        import ray

        inputs = Path(json.loads(config_json)["input"]["shards"][0]).parent
        if ray.get_runtime_context().get_node_id() in (inputs / "bad_nodes").read_text():
            raise OSError("no such accelerator")
        super().__init__(config_json, fingerprint)
