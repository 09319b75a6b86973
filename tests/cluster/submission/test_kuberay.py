"""The RayJob manifest against KubeRay's own schema, and what it must and must not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.submission.kuberay import Pods, rayjob_manifest
from cluster.submission.travelling_config import travelling
from lib.problems import ConfigProblem
from pipelines.config import RunConfig
from pipelines.config_file import load_config

PODS = Pods(
    image="registry.example/deltah:1",
    name="faces",
    namespace=None,
    service_account=None,
    secret=None,
    min_workers=8,
    drain_s=300,
    retry_quarantined=False,
)


def config(*changes: str) -> RunConfig:
    wanted = ("execution.engine=ray", "execution.workers=8", "execution.gpus_per_worker=1")
    return travelling(load_config("demo", [*wanted, *changes]))


def documents(made: RunConfig, pods: Pods) -> tuple[dict[str, Any], dict[str, Any]]:
    config_map, ray_job = yaml.safe_load_all(rayjob_manifest(made, pods))
    return config_map, ray_job


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Of RayJob in ray.io/v1, from the custom resource definition beside the project."""
    root = Path(__file__).resolve().parents[3]
    found = [
        folder / "shared" / "kuberay" / "ray.io_rayjobs.yaml"
        for folder in (root.parent, root.parent.parent)
    ]
    there = [path for path in found if path.exists()]
    if not there:
        pytest.skip(f"KubeRay's schema is not there: {found[0]}")
    definition = yaml.load(there[0].read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (served,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
    return dict(served["schema"]["openAPIV3Schema"])


def unknown_fields(value: Any, schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Fields without a place in the schema: Kubernetes drops them in silence or refuses them, and
    JSON Schema lets them pass."""
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        # a definition says nothing of metadata, which is Kubernetes' own
        free = path.endswith("metadata") or schema.get("x-kubernetes-preserve-unknown-fields")
        for key, child in value.items():
            if key in known:
                yield from unknown_fields(child, known[key], f"{path}.{key}")
            elif isinstance(others, dict):
                yield from unknown_fields(child, others, f"{path}.{key}")
            elif not free:
                yield f"{path}.{key}"
    elif isinstance(value, list):
        for child in value:
            yield from unknown_fields(child, schema.get("items", {}), f"{path}[]")


def mistakes(ray_job: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    wrong = jsonschema.Draft202012Validator(schema).iter_errors(ray_job)
    return [error.json_path for error in wrong] + list(unknown_fields(ray_job, schema))


@pytest.mark.parametrize("gpus", [0, 0.5, 1, 4])
@pytest.mark.parametrize("all_options", [False, True])
def test_the_manifest_is_one_that_kuberay_takes(
    schema: dict[str, Any], gpus: float, all_options: bool
) -> None:
    more = Pods("i", "n", "ns", "account", "secret", 2, 60, True) if all_options else PODS
    config_map, ray_job = documents(config(f"execution.gpus_per_worker={gpus}"), more)
    assert mistakes(ray_job, schema) == []
    assert (ray_job["apiVersion"], ray_job["kind"]) == ("ray.io/v1", "RayJob")
    assert (config_map["apiVersion"], config_map["kind"]) == ("v1", "ConfigMap")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.entryPoint", "python"),
        ("spec.ttlSecondsAfterFinished", "ten"),
        ("spec.rayClusterSpec.authOptions.mode", "open"),
        (
            "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.imagePullPolicies",
            "Always",
        ),
        ("spec.rayClusterSpec.workerGroupSpecs.0.maxReplica", 3),
        ("spec.rayClusterSpec.workerGroupSpecs.0.rayStartParams.num-cpus", 2),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.volumes.0.emptydir", {}),
    ],
)
def test_a_wrong_field_does_not_pass_the_check(
    schema: dict[str, Any], path: str, value: Any
) -> None:
    _, ray_job = documents(config(), PODS)
    at: Any = ray_job
    *way, last = path.split(".")
    for step in way:
        at = at[int(step)] if step.isdigit() else at[step]
    at[last] = value
    assert mistakes(ray_job, schema) != []


def test_the_config_travels_in_the_manifest_and_the_job_reads_it_there(tmp_path: Path) -> None:
    made = config("model.cpu_threads=2", "edit.strengths=[0.25]")
    prompt = made.model.model_copy(update={"prompt": "a: {{x}} 'q' \"d\"\n---\n# é ☃"})
    made = made.model_copy(update={"model": prompt})
    config_map, ray_job = documents(made, replace(PODS, retry_quarantined=True))
    (tmp_path / "run.yaml").write_text(config_map["data"]["run.yaml"])
    again = load_config(str(tmp_path / "run.yaml"))
    assert again == made
    spec = ray_job["spec"]
    words = "python -m cluster run /etc/deltah/run.yaml --retry-quarantined"
    assert spec["entrypoint"] == words
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    (mount,) = (m for m in head["containers"][0]["volumeMounts"] if m["name"] == "config")
    (volume,) = (v for v in head["volumes"] if v["name"] == "config")
    assert mount["mountPath"] == "/etc/deltah"
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]


@pytest.mark.parametrize(
    ("gpus", "workers", "first", "pods", "least", "limit"),
    [(1, 8, 8, 8, 8, "1"), (4, 8, 2, 8, 2, "4"), (0.5, 9, 3, 5, 2, "1"), (0, 8, 8, 8, 8, None)],
)
def test_pods_hold_just_the_workers(
    gpus: float, workers: int, first: int, pods: int, least: int, limit: str | None
) -> None:
    made = config(f"execution.gpus_per_worker={gpus}", f"execution.workers={workers}")
    cluster = documents(made, replace(PODS, min_workers=first))[1]["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (least, least, pods)
    resources = group["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"].get("nvidia.com/gpu") == limit
    assert cluster.get("enableInTreeAutoscaling", False) == (least < pods)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_credentials_come_from_a_secret_and_none_stand_in_the_manifest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-away")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "hidden-away")
    made = config("output.folder=s3://bucket/out")
    text = rayjob_manifest(made, replace(PODS, secret="store"))
    assert "hidden-away" not in text
    cluster = documents(made, replace(PODS, secret="store"))[1]["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "store"}}]
    with pytest.raises(ConfigProblem, match=r"output.folder: .* without user, password or query"):
        config("output.folder=s3://key:hidden-away@bucket/out")


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        (replace(PODS, name="Faces"), r"--name: .* got 'Faces'"),
        (replace(PODS, name="f" * 41), "at most 40"),
        (replace(PODS, secret="a b"), "--env-from-secret"),
        (replace(PODS, namespace="-a"), "--namespace"),
        (replace(PODS, service_account="x\ny"), "--service-account"),
        (replace(PODS, min_workers=9), "--min-workers: expected 1 to 8"),
        (replace(PODS, min_workers=0), "--min-workers"),
    ],
)
def test_what_kubernetes_would_refuse_is_refused_here(pods: Pods, said: str) -> None:
    with pytest.raises(ConfigProblem, match=said):
        rayjob_manifest(config(), pods)
