"""Requests to an object store: those that a plan foretells, and those that a server has seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import pytest
from rich.console import Console

from cluster.runner import run
from lib.files import storage
from lib.ledger.commit_record import read_commit
from lib.ledger.run_folder import RunFolder
from pipelines.config import RunConfig
from pipelines.request_counts import ONCE, Requests, ShardTraffic, run_requests

s3fs = pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
BUCKET = "s3://deltah-requests"
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def seen() -> Counter[str]:
    """What the server was asked for, by method, listings apart."""
    return Counter()


@pytest.fixture(scope="module")
def server(seen: Counter[str]) -> Iterator[str]:
    application = moto_server.DomainDispatcherApplication
    serve = application.__call__

    def counted(self: Any, environ: dict[str, Any], start_response: Any) -> Any:
        listing = "list-type=2" in environ["QUERY_STRING"]
        seen["LIST" if listing else environ["REQUEST_METHOD"]] += 1
        if listing and "commit%2F&" in environ["QUERY_STRING"]:
            seen["LIST commit"] += "max-keys" not in environ["QUERY_STRING"]
        return serve(self, environ, start_response)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "__call__", counted)
        server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
        server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server})
    s3fs.S3FileSystem.clear_instance_cache()
    fs = fsspec.filesystem("s3")
    fs.mkdir(BUCKET)
    yield BUCKET
    fs.rm(BUCKET, recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()


def requests_of(made: RunConfig, seen: Counter[str]) -> Counter[str]:
    """Of a whole run in this process, finalize included."""
    seen.clear()
    outcome = run(made, console=Console(quiet=True))
    assert outcome.exit_code == 0, outcome.sentence
    return Counter(seen)


def folders_of(root: str, shard: str) -> dict[str, float]:
    record = read_commit(RunFolder(root).commit_url(shard))
    return {file.folder: float(file.size) for file in record.files}


CASES: dict[str, dict[str, Any]] = {
    "edits, one image of each shard broken": {},
    "edits that store their latents": {"output": {"latents": "float32"}},
    "edits from stored latents": {"invert": {"latents": f"{BUCKET}/4-stored"}},
    "what is learned from all images": {
        "pipeline": "direction_library",
        "discover": {"method": "pca", "components": 1, "sketch_rank": 4},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_two_more_shards_cost_the_requests_that_the_plan_says(
    bucket: str, seen: Counter[str], tiny_checkpoint: Path, shards: ModuleType, case: str
) -> None:
    broken, from_stored = "broken" in case, "from stored" in case
    for number in range(4):
        members = shards.samples(2, first=10 * number)
        if broken:
            members[1] = (members[1][0], b"no image")
        storage.create(f"{bucket}/in-{number}.tar", shards.tar_bytes(members))

    def made(count: int, name: str = "run", **sections: Any) -> RunConfig:
        root = f"{bucket}/{count}-{name}"
        inputs = [f"{bucket}/in-{number}.tar" for number in range(count)]
        values = shards.config(
            tiny_checkpoint, "-", Path("-"), grid={"num_steps": 3}, edit={"strengths": [0.1]}
        ).model_dump(mode="json")
        values["input"]["shards"], values["output"]["folder"] = inputs, root
        for section, value in sections.items():
            if section == "discover":
                values[section] = value
            else:
                values[section] = values[section] | value if isinstance(value, dict) else value
        return RunConfig.model_validate(values)

    if from_stored:
        requests_of(made(4, "stored", output={"latents": "float32"}), seen)
    few, many = (requests_of(made(count, **CASES[case]), seen) for count in (2, 4))
    more = many - few
    files = folders_of(f"{bucket}/4-run", "in-0")
    assert ("errors" in files) == broken
    traffic = ShardTraffic(5_000, files, 5_000.0 if from_stored else 0.0)
    two = _less(run_requests(4, traffic), run_requests(2, traffic))
    assert (two.get, two.head, two.put) == (more["GET"], more["HEAD"], more["PUT"])
    assert many["LIST"] == few["LIST"], "they are pages of a thousand names"


def _less(one: Requests, other: Requests) -> Requests:
    return one + other.times(-1)


def test_the_arithmetic_of_requests() -> None:
    small = ShardTraffic(1e6, {"images": 1e6, "directions": 1e5})
    # A shard: a GET of the input and one of the commit at the end; two files and a commit are put.
    # 12,000 names are 11 pages more than the one that every run lists, 3 times in commit/ and once
    # each in images/ and directions/. Sixteen shards are looked at for their size. An hour is 60
    # refreshes of half of it, and 120 times two writes of the driver's record and events.
    found = _less(run_requests(12_000, small), ONCE)
    assert found == Requests(get=24_000, put=36_000, head=16, list=5 * 11)
    waiting = _less(run_requests(12_000, small, driver_s=3600.0), ONCE)
    assert waiting == Requests(get=24_000, put=36_240, head=16, list=55 + 60 * 6)


def test_large_objects_are_read_and_put_by_parts() -> None:
    mib = 2**20
    large = ShardTraffic(120 * mib, {"images": 100 * mib, "statistics": 60 * mib})
    # 120 MiB are 8 ranges of 16, statistics 4; 100 MiB are put in 7 parts, begun and completed.
    found = _less(run_requests(1, large), ONCE)
    assert (found.get, found.put) == (8 + 1 + 4, 9 + 6 + 1)
