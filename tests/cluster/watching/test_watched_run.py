"""One run on real Ray whose workers are killed while it is watched: what status, summary, verify,
metrics and the end say of it is the same.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console

from cluster.settlement import Outcome
from cluster.views.status import json_of
from cluster.watching.ray_metrics import COUNTERS, GAUGES, HISTOGRAMS
from cluster.watching.run_status import StatusReader
from lib.ledger.run_folder import RunFolder
from lib.ledger.summary import summary
from lib.ledger.verification import Verification, verify
from pipelines.config import Execution

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

_SHARDS, _KILLS = 24, 3
_METRICS_MS = "500"


@dataclass
class Watched:
    """What was seen of the run."""

    run: Any
    looks: list[tuple[Verification, dict[str, Any], Verification]] = field(default_factory=list)
    """verify, status, verify: one after the other, while others worked."""
    same: list[tuple[dict[str, Any], Verification]] = field(default_factory=list)
    """Summary and verification of one snapshot."""
    kills: int = 0
    outcome: Outcome | None = None
    exported: dict[tuple[str, str], float] = field(default_factory=dict)
    """What the node's metrics came to; see `exported`."""


@pytest.fixture(scope="module")
def seen(
    toys: ModuleType, make_toy_run: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    from ray import cloudpickle

    from cluster.pools.ray_session import Resources, ray_session

    patch = pytest.MonkeyPatch()
    patch.setenv("RAY_metrics_report_interval_ms", _METRICS_MS)
    cloudpickle.register_pickle_by_value(toys)
    run = make_toy_run(tmp_path_factory.mktemp("watched"))
    run.console = Console(file=io.StringIO(), width=200)
    run.execution = Execution(engine="ray", workers=2)
    run.rules = replace(run.rules, workers=2, max_attempts=4)
    run.write(
        poison={"do": "exit"},
        bad={"do": "raise"},
        **{f"s{i:02d}": {"seconds": 0.4, "samples": i % 4} for i in range(_SHARDS)},
    )
    watched = Watched(run)
    over = threading.Event()
    threads = [
        threading.Thread(target=target, args=(watched, over)) for target in (_look, _kill_some)
    ]
    with ray_session("local", 2, Resources(gpus=0.0, threads=1)):
        for thread in threads:
            thread.start()
        try:
            watched.outcome = run.run(toys.ToyWorker)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        watched.exported = _scrape(run)
        yield watched
    cloudpickle.unregister_pickle_by_value(toys)
    patch.undo()


@pytest.fixture
def metrics(seen: Watched) -> dict[tuple[str, str], float]:
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="comes with ray[default]")
    return seen.exported


def _look(watched: Watched, over: threading.Event) -> None:
    folder: RunFolder = watched.run.folder
    while not os.path.exists(folder.inputs_url):
        time.sleep(0.02)
    reader = StatusReader(folder)
    while not over.is_set():
        before = verify(folder)
        status = json.loads(json_of(folder.root, reader.read()))
        watched.looks.append((before, status, verify(folder)))
        now = folder.snapshot()
        found = summary(folder, now)
        watched.same.append((numbers_of(found), verify(folder, snapshot=now)))
        time.sleep(0.05)


def _kill_some(watched: Watched, over: threading.Event) -> None:
    """kill -9 the worker that begins a shard, now and then."""
    killed: set[int] = set()
    for shard in range(3, _SHARDS, _SHARDS // _KILLS):
        while not (starts := watched.run.starts(f"s{shard:02d}")):
            if over.wait(0.05):
                return
        pid = int(starts[0].split()[0])
        if pid not in killed:
            killed.add(pid)
            os.kill(pid, signal.SIGKILL)
            watched.kills += 1


def _scrape(run: Any) -> dict[tuple[str, str], float]:
    """The last value of everything: Ray sends numbers on in parts, and drops gauges that are not
    set any more after some seconds.
    """
    import ray

    (node,) = ray.nodes()
    if node["MetricsExportPort"] <= 0:  # a Ray without its extra `default`
        return {}
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    expected = receipted(run)
    latest: dict[tuple[str, str], float] = {}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with urllib.request.urlopen(url, timeout=10) as answer:
            latest |= exported(str(answer.read().decode()))
        if {key: latest.get(key) for key in expected} == pytest.approx(expected):
            break
        time.sleep(0.3)
    return latest


def exported(text: str) -> dict[tuple[str, str], float]:
    """(name without `ray_`, value of its own label) -> value, of this project's metrics."""
    from prometheus_client.parser import text_string_to_metric_families

    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("ray_deltah"):
                own = [sample.labels[k] for k in _OWN_LABELS if k in sample.labels]
                found[sample.name.removeprefix("ray_"), "".join(own)] = sample.value
    return found


def receipted(run: Any) -> dict[tuple[str, str], float]:
    """What the events of a run say that its metrics must be."""
    reports = [event["report"] for event in run.events("shard_done")]
    kept = [event["report"] for event in run.events("shard_done") if event["counts"]]
    failed = Counter(event["verdict"] for event in run.events("shard_failed"))
    died = Counter(event["cause"].replace(" ", "_") for event in run.events("worker_died"))
    lost = len(run.events("shard_started")) - len(reports) - failed.total()
    ready_s = run.events("run_finished")[0]["work"]["ready_s"]
    return {
        ("deltah_samples_total", "error"): sum(r["n_err"] for r in kept),
        ("deltah_shards_total", "done"): len(kept),
        ("deltah_shards_total", "quarantined"): 2,
        ("deltah_bytes_total", "in"): sum(r["bytes_in"] for r in reports),
        ("deltah_bytes_total", "out"): sum(r["bytes_out"] for r in kept),
        ("deltah_gpu_busy_seconds_total", ""): sum(r["model_s"] - r["wait_s"] for r in reports),
        ("deltah_gpu_wait_seconds_total", ""): sum(r["wait_s"] + r["idle_s"] for r in reports),
        ("deltah_attempts_total", "committed"): len(kept),
        ("deltah_attempts_total", "worker_died"): lost,
        **{("deltah_attempts_total", verdict): count for verdict, count in failed.items()},
        **{("deltah_worker_deaths_total", cause): count for cause, count in died.items()},
        **{("deltah_stage_seconds_count", s): len(reports) for s in ("read", "model", "write")},
        ("deltah_shards", "done"): _SHARDS,
        ("deltah_shards", "quarantined"): 2,
        ("deltah_shards", "waiting"): 0,
        ("deltah_shards", "in_flight"): 0,
        ("deltah_workers", "ready"): 0,
        ("deltah_workers", "loading"): 0,
        ("deltah_worker_ready_seconds_total", ""): ready_s,
    }


_OWN_LABELS = ("status", "dir", "verdict", "cause", "state", "stage", "le")

_DISTRIBUTION = ("deltah_stage_seconds_bucket", "deltah_stage_seconds_sum")
"""Ray adds up the middles of the buckets, not the seconds."""


def numbers_of(found: Any) -> dict[str, Any]:
    counts = found.shards
    return {
        "inputs": counts.inputs,
        "committed": counts.committed,
        "quarantined": counts.quarantined,
        "pending": counts.pending,
        "samples_ok": found.samples_ok,
        "samples_err": found.samples_err,
        "edits": found.edits,
        "directions": found.directions,
    }


def test_the_run_ends_whole_although_workers_were_killed(seen: Watched) -> None:
    assert seen.outcome is not None
    assert (seen.outcome.exit_code, seen.outcome.done, seen.outcome.quarantined) == (3, _SHARDS, 2)
    assert seen.kills >= 2
    assert verify(seen.run.folder, deep=True).ok


def test_summary_and_verify_of_one_moment_are_equal_at_every_moment(seen: Watched) -> None:
    assert len(seen.same) >= 5
    for counted, checked in seen.same:
        assert counted == {name: getattr(checked, name) for name in counted}
        assert checked.faults == (), "a run that is under way has nothing wrong with it"
    assert len({checked.committed for _, checked in seen.same}) >= 4, "it was seen under way"


def test_status_lies_between_the_verify_before_it_and_the_one_after(seen: Watched) -> None:
    before_all: dict[str, Any] | None = None
    for before, status, after in seen.looks:
        shards = status["shards"]
        assert shards["inputs"] == _SHARDS + 2
        assert shards["committed"] + shards["quarantined"] + shards["pending"] == _SHARDS + 2
        assert before.committed <= shards["committed"] <= after.committed
        assert before.pending >= shards["pending"] >= after.pending
        for name in ("samples_ok", "samples_err", "edits"):
            assert getattr(before, name) <= status[name] <= getattr(after, name)
        assert status["counts_from"] == "commits"
        assert status["damaged"] == []
        if before_all is not None:
            assert before_all["samples_err"] <= status["samples_err"]
            assert before_all["shards"]["pending"] >= shards["pending"]
        before_all = status


def test_status_says_who_works_on_it_while_they_do(seen: Watched) -> None:
    under_way = [status for _, status, _ in seen.looks if status["shards"]["committed"]]
    assert under_way[0]["sentence"] == "working, 1 driver"
    assert under_way[0]["drivers"][0]["alive"]
    assert not under_way[0]["over"]


def test_after_the_end_all_that_counts_is_equal(seen: Watched) -> None:
    run = seen.run
    ran = subprocess.run(
        [sys.executable, "-m", "cluster", "status", run.folder.root, "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    status = json.loads(ran.stdout)
    checked = verify(run.folder)
    assert status["over"]
    assert status["sentence"] == "finished"
    assert status["samples_ok"] + status["samples_err"] == sum(i % 4 for i in range(_SHARDS))
    assert status["samples_err"] == checked.samples_err
    assert status["error_kinds"] == {"toy": checked.samples_err}
    assert status["work"]["images"] == status["samples_ok"] + status["samples_err"]
    assert status["work"]["shards"] == _SHARDS
    assert set(status["quarantined"]) == {"bad", "poison"}
    work = status["work"]
    assert work["attempts"] == work["shards"] + work["lost"] + sum(work["failures"].values())
    died = len(run.events("worker_died"))
    assert work["deaths"] == {"died": died}
    assert died >= seen.kills
    assert run.events("run_finished")[0]["work"] == work


def test_the_end_of_the_run_tells_what_it_took(seen: Watched) -> None:
    said = dict(line.split(": ", 1) for line in seen.run.printed().splitlines() if ": " in line)
    images = sum(i % 4 for i in range(_SHARDS))
    assert said["images"] == f"{images} in {_SHARDS} shards, {images} with errors"
    assert said["errors"] == f"toy: {images}"
    assert (
        said["model wait"] == "30.0% of its time, for images or encoders"
    )  # (0.125 + 0.25) / (1 + 0.25)
    assert said["attempts that failed"] == f"retry {len(seen.run.events('shard_failed'))}"
    assert said["cost"].endswith(" worker-hours")
    assert said["output"] == seen.run.folder.root


def test_metrics_of_the_node_equal_the_receipts(
    seen: Watched, metrics: dict[tuple[str, str], float]
) -> None:
    found = {key: value for key, value in metrics.items() if key[0] not in _DISTRIBUTION}
    assert found == pytest.approx(receipted(seen.run))


def test_stages_fall_into_their_buckets(
    seen: Watched, metrics: dict[tuple[str, str], float]
) -> None:
    reports = [event["report"] for event in seen.run.events("shard_done")]
    for stage in ("read", "model", "write"):
        for bound in (0.1, 0.3, 1.0, 3.0):
            below = sum(report[f"{stage}_s"] <= bound for report in reports)
            assert metrics["deltah_stage_seconds_bucket", f"{stage}{bound}"] == below


def test_no_label_of_a_metric_grows_with_the_run() -> None:
    labels = {label for _, names in (COUNTERS | GAUGES | HISTOGRAMS).values() for label in names}
    assert labels == {"status", "dir", "verdict", "cause", "state", "stage"}
