"""deploy/kubernetes without a cluster: the published schemas, and what must hold between the resources."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

from promptmill.worker.settings import WorkerSettings
from tests.deploy.clusters import (
    KUBERNETES,
    ONE_HOST,
    OVERLAYS,
    Resource,
    container,
    matches,
    rendered,
    resource,
    template,
    templates,
)
from tests.deploy.clusters import environment as environment_of
from tests.deploy.programs import ROOT, metrics_in, metrics_of_the_page

MODELS: dict[str, Any] = {model.__name__: model for model in (ScaledObject, PodMonitor, PrometheusRule, ServiceMonitor)}
"""The operators' kinds, by models that were made of their published schemas."""

SPOT_NOTICE_S = 15
"""Of the 30 seconds of a spot machine's notice the kubelet's graceful shutdown leaves these to pods like ours."""

STOP_S = 5
"""What a worker takes to end after its drain."""

SECRETS = {"promptmill-redis": "s3cret"}


@cache
def every(kind: str, overlay: str) -> list[Resource]:
    return [one for one in rendered(overlay) if one["kind"] == kind]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_fits_its_published_schema(overlay: str) -> None:
    for one in rendered(overlay):
        what = f"{one['kind']} {one['metadata']['name']}"
        if one["kind"] in MODELS:
            model = MODELS[one["kind"]].model_validate(one)
            kept = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert kept["spec"] == one["spec"], f"{what} has fields that the schema does not"
        elif one["kind"] == "JobSet":
            check_jobset(one)
        else:
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def check_jobset(jobset: Resource) -> None:
    """By the published CRD of jobset.x-k8s.io/v1alpha2; each of its templates is a Job, which has a schema."""
    assert jobset["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert set(jobset["spec"]) <= {"replicatedJobs", "failurePolicy", "successPolicy", "network", "suspend"}
    assert set(jobset["spec"]["failurePolicy"]) <= {"maxRestarts", "rules", "restartStrategy"}
    for job in jobset["spec"]["replicatedJobs"]:
        assert set(job) <= {"name", "replicas", "template", "groupName", "dependsOn"}
        one = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": job["name"]}, **job["template"]}
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_a_field_that_the_schemas_do_not_know_is_found() -> None:
    wrong = yaml.safe_load(yaml.safe_dump(resource("cpu", "Deployment", "worker")))
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_all_is_in_one_namespace_and_says_whose_it_is(overlay: str) -> None:
    for one in rendered(overlay):
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "promptmill", one["kind"]
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "promptmill"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_a_resource_names_is_there(overlay: str) -> None:
    named = {(one["kind"], one["metadata"]["name"]) for one in rendered(overlay)}
    for name, pod in templates(overlay):
        spec = pod["spec"]
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", spec["serviceAccountName"]) in named
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
        for one in spec["containers"]:
            assert {mount["name"] for mount in one.get("volumeMounts", [])} <= volumes, name
            ports = {port["name"] for port in one["ports"]}
            probes = [one[probe] for probe in ("startupProbe", "readinessProbe", "livenessProbe") if probe in one]
            assert probes
            for probe in probes:
                for how in ("httpGet", "tcpSocket"):
                    assert probe.get(how, {}).get("port") in {None, *ports}, name
    pods = [pod["metadata"]["labels"] for _, pod in templates(overlay)]
    selectors = [
        one["spec"]["selector"] for kind in ("PodDisruptionBudget", "PodMonitor") for one in every(kind, overlay)
    ]
    selectors += [{"matchLabels": one["spec"]["selector"]} for one in every("Service", overlay)]
    selectors += [one["spec"]["podSelector"] for one in every("NetworkPolicy", overlay)]
    for selector in selectors:
        assert any(matches(selector, labels) for labels in pods), selector
    (monitor,) = every("ServiceMonitor", overlay)
    assert matches(monitor["spec"]["selector"], resource(overlay, "Service", "exporter")["metadata"]["labels"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_ends_within_the_notice_of_its_machine(overlay: str) -> None:
    settings = WorkerSettings.from_env(environment_of(overlay, "worker", SECRETS))
    spec = template(overlay, "worker")["spec"]
    assert settings.drain_s + STOP_S <= spec["terminationGracePeriodSeconds"] <= SPOT_NOTICE_S
    assert spec["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    tolerated = {(one["key"], one.get("value")) for one in spec["tolerations"]}
    assert ("cloud.google.com/gke-spot", "true") in tolerated
    (budget,) = every("PodDisruptionBudget", overlay)
    assert matches(budget["spec"]["selector"], template(overlay, "worker")["metadata"]["labels"])


def test_without_the_spot_component_a_worker_has_the_time_that_it_takes_by_itself() -> None:
    base = {one["kind"]: one for one in yaml.safe_load_all((KUBERNETES / "base" / "worker.yaml").read_text())}
    drain_s = float(base["ConfigMap"]["data"]["PROMPTMILL_DRAIN"])
    assert drain_s == WorkerSettings().drain_s
    assert base["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain_s + STOP_S


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_workers_accelerators_are_those_of_its_overlay(overlay: str) -> None:
    spec, one = template(overlay, "worker")["spec"], container(overlay, "worker")
    limits, node = one["resources"].get("limits", {}), spec["nodeSelector"]
    topology = node.get("cloud.google.com/gke-tpu-topology")
    expected = {
        "cpu": (None, None, {}),
        "gpu": (None, None, {"nvidia.com/gpu": 1}),
        "tpu-v5e": ("tpu-v5-lite-podslice", "2x4", {"google.com/tpu": 8}),
        "tpu-v6e": ("tpu-v6e-slice", "2x4", {"google.com/tpu": 8}),
        "tpu-v6e-slice": ("tpu-v6e-slice", "4x4", {"google.com/tpu": 4}),
    }
    assert (node.get("cloud.google.com/gke-tpu-accelerator"), topology, limits) == expected[overlay]
    assert (
        one["image"]
        == f"REGISTRY/promptmill:{'tpu' if 'tpu' in overlay else {'gpu': 'cuda', 'cpu': 'worker'}[overlay]}"
    )


def test_each_host_of_a_slice_is_a_worker_for_itself() -> None:
    jobset = resource("tpu-v6e-slice", "JobSet", "worker")
    (job,) = jobset["spec"]["replicatedJobs"]
    hosts, chips = job["template"]["spec"]["parallelism"], container("tpu-v6e-slice", "worker")["resources"]["limits"]
    assert hosts * chips["google.com/tpu"] == 4 * 4
    variables = environment_of("tpu-v6e-slice", "worker", SECRETS)
    assert variables["TPU_HOST_BOUNDS"] == "1,1,1" and variables["TPU_WORKER_HOSTNAMES"] == "localhost"
    assert [one["metadata"]["name"] for one in every("Deployment", "tpu-v6e-slice")] == ["exporter"]
    # But for what is the slice's, its workers are those of the other overlays.
    alike = ("command", "args", "envFrom", "ports", "startupProbe", "readinessProbe", "livenessProbe", "volumeMounts")
    for key in alike:
        assert container("tpu-v6e-slice", "worker")[key] == container("tpu-v6e", "worker")[key], key


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_built_with_what_their_commands_need(overlay: str) -> None:
    text = (KUBERNETES / "overlays" / overlay / "kustomization.yaml").read_text()
    (extras, tag), *_ = re.findall(r"--build-arg EXTRAS=(\S+) --tag REGISTRY/promptmill:(\w+)", text)
    assert "metrics" in extras.split(",") and f"newTag: {tag}" in text
    default = re.search(r"^ARG EXTRAS=(\S+)$", (ROOT / "Dockerfile").read_text(), re.M)
    assert default and "metrics" in default[1].split(",")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_runs_with_more_rights_than_needed(overlay: str) -> None:
    for name, pod in templates(overlay):
        spec = pod["spec"]
        for one in spec["containers"]:
            assert one["securityContext"]["allowPrivilegeEscalation"] is False
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        chips = name == "worker" and "tpu" in overlay
        assert spec["securityContext"].get("runAsNonRoot", False) is not chips, name


def peers(policy: Resource) -> list[Resource]:
    return [peer for rule in policy["spec"].get("ingress", []) for peer in rule["from"]]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_ours_reach_redis_and_only_prometheus_the_metrics(overlay: str) -> None:
    clients = {name for name, pod in templates(overlay) if "promptmill/redis" in pod["metadata"]["labels"]}
    assert clients == {"worker", "exporter"}
    (peer,) = peers(resource(overlay, "NetworkPolicy", "redis"))
    assert peer == {"podSelector": {"matchLabels": {"promptmill/redis": "client"}}}
    (peer,) = peers(resource(overlay, "NetworkPolicy", "metrics"))
    assert peer == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    assert resource(overlay, "NetworkPolicy", "nothing-comes-in")["spec"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
    }
    # A worker reaches Redis, names, buckets, and the metadata server for its identity.
    egress = resource(overlay, "NetworkPolicy", "worker")["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == {6379, 53, 443, 80, 988}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_a_file(overlay: str) -> None:
    assert every("Secret", overlay) == []
    made = (KUBERNETES / "base" / "redis.yaml").read_text()
    assert "create secret generic promptmill-redis --from-literal=password=" in made


@pytest.mark.parametrize("overlay", ONE_HOST)
def test_keda_scales_the_workers_by_a_metric_that_there_is(overlay: str) -> None:
    spec = resource(overlay, "ScaledObject", "worker")["spec"]
    assert spec["scaleTargetRef"]["name"] == resource(overlay, "Deployment", "worker")["metadata"]["name"]
    assert "replicas" not in resource(overlay, "Deployment", "worker")["spec"], "or applying it anew resets them"
    (trigger,) = spec["triggers"]
    assert metrics_in(trigger["metadata"]["query"]) == {"promptmill_queue_jobs"} <= metrics_of_the_page()
    assert spec["minReplicaCount"] == 0


def test_the_files_of_the_folder_are_all_used() -> None:
    listed: set[Path] = set()
    for path in KUBERNETES.rglob("kustomization.yaml"):
        told = yaml.safe_load(path.read_text())
        listed |= {(path.parent / one).resolve() for one in told.get("resources", []) + told.get("components", [])}
    files = {path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files <= listed
