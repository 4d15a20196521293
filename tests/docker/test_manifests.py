"""The Compose file and the Kubernetes manifests are valid, and nothing in them is open."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields

import kubernetes_validate
import pytest

from crossreg.services.cluster import Secrets
from tests.docker.files import (
    COMPOSE,
    DOCKER,
    ONE_SHOTS,
    ROOT,
    SECRET,
    SERVICES,
    compose,
    pods,
    ray_clusters,
    resources,
    secret_variables,
)

PODS = pods()


def test_compose_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_everything_a_service_names_is_there() -> None:
    document = compose()
    for name, service in SERVICES.items():
        assert set(service["networks"]) <= document["networks"].keys(), name
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= document["volumes"].keys(), name
        assert {config["source"] for config in service.get("configs", [])} <= document.get("configs", {}).keys()
        for other, wanted in service.get("depends_on", {}).items():
            ends = other in ONE_SHOTS
            assert wanted["condition"] == ("service_completed_successfully" if ends else "service_healthy")
            assert other in SERVICES
    for config in document["configs"].values():
        assert (DOCKER / config["file"]).is_file()


def test_services_reach_what_they_talk_to() -> None:
    for name, service in SERVICES.items():
        told = " ".join([*service.get("command", []), *map(str, service.get("environment", {}).values())])
        if "/etc/mlflow/auth.ini" in told:
            told += (DOCKER / "mlflow-auth.ini").read_text()
        for other in SERVICES:
            if other != name and re.search(rf"(//|@|=){other}:\d", told):
                assert set(service["networks"]) & set(SERVICES[other]["networks"]), f"{name} -> {other}"


def test_pods_and_policies_are_valid() -> None:
    newest = kubernetes_validate.latest_version()
    for name, group in PODS.items():
        template = group["template"]
        metadata = {"name": name.replace("/", "-").lower(), **template["metadata"]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
        kubernetes_validate.validate(pod, newest, strict=True)
    for kind in ("NetworkPolicy", "PersistentVolumeClaim"):
        kubernetes_validate.validate(resources()[kind], newest, strict=True)


def test_ray_resources_have_the_fields_that_kuberay_knows() -> None:
    # KubeRay's schema is in no package: the fields in use, by the reference of its version 1.6.2
    cluster = {"rayVersion", "authOptions", "headGroupSpec", "workerGroupSpecs"}
    job = {"entrypoint", "submissionMode", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "backoffLimit"}
    found = resources()
    assert {found[kind]["apiVersion"] for kind in ("RayCluster", "RayJob")} == {"ray.io/v1"}
    assert found["RayJob"]["spec"].keys() == job | {"rayClusterSpec"}
    assert found["RayJob"]["spec"]["shutdownAfterJobFinishes"] is True
    for spec in ray_clusters().values():
        assert spec.keys() == cluster
        assert spec["authOptions"] == {"mode": "token", "secretName": "crossreg-ray-token"}
        assert spec["headGroupSpec"].keys() == {"serviceType", "rayStartParams", "template"}
        for group in spec["workerGroupSpecs"]:
            assert group.keys() == {
                "groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"
            }  # fmt: skip
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_policy_covers_every_pod_and_lets_only_jobs_in() -> None:
    spec = resources()["NetworkPolicy"]["spec"]
    assert set(spec["policyTypes"]) == {"Ingress", "Egress"}
    for name, group in PODS.items():
        template = group["template"]
        assert spec["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items(), name
    inside, outside = spec["ingress"]
    assert inside["from"] == [{"podSelector": spec["podSelector"]}]
    assert {port["port"] for port in outside["ports"]} == {8265}
    assert all(peer for peer in outside["from"])


def test_nothing_is_published_beyond_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if service.get("ports")}
    assert published == {"mlflow": ["127.0.0.1:5000:5000"], "ray-head": ["127.0.0.1:8265:8265"]}
    for name, service in SERVICES.items():
        assert "network_mode" not in service, name
    networks = compose()["networks"]
    assert {name for name, network in networks.items() if not network.get("internal")} == {"cluster"}
    assert all(spec["headGroupSpec"]["serviceType"] == "ClusterIP" for spec in ray_clusters().values())


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_is_privileged(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode"}
    assert not any("docker.sock" in volume or volume.startswith(("/", ".")) for volume in service.get("volumes", []))
    # Ray's logs, uploads and spilled objects belong on a disk
    assert service.get("read_only", False) is not name.startswith("ray-")
    assert service["mem_limit"]
    assert service["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped")
    assert name in ONE_SHOTS or service["stop_grace_period"]


@pytest.mark.parametrize("name", PODS)
def test_no_pod_is_privileged(name: str) -> None:
    spec = PODS[name]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["automountServiceAccountToken"] is False
    assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    for container in spec["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["resources"]["limits"].keys() == {"cpu", "memory"}


def test_every_secret_comes_from_the_environment_and_stands_in_no_command() -> None:
    wanted = {f"CROSSREG_{field.name.upper()}" for field in fields(Secrets)}
    assert secret_variables() == wanted
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET.search(variable):
                assert re.fullmatch(r"<CROSSREG_\w+>", value), f"{name}: {variable}"
        told = [*service.get("entrypoint", []), *service.get("command", []), *service.get("healthcheck", {}).values()]
        assert not any("<CROSSREG_" in str(word) for word in told), name
        assert not any(re.search(r"//\w*:[^@/]*@", str(word)) for word in told), name
    for name, group in PODS.items():
        template = group["template"]
        for container in template["spec"]["containers"]:
            assert container["envFrom"] == [{"secretRef": {"name": "crossreg"}}]
            literal = {variable["name"] for variable in container["env"] if "value" in variable}
            assert not any(SECRET.search(variable) for variable in literal), name


def test_the_example_names_every_secret_and_holds_none() -> None:
    lines = (DOCKER / "env.example").read_text().splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == {f"{name}=" for name in secret_variables()}
    # what else the file can be told, and that it is told the same defaults
    told = dict(line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#[A-Z_]+=", line))
    pattern = re.compile(r"\$\{(\w+):-([^}]+)\}")
    assert told == dict(pattern.findall(COMPOSE.read_text()))
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().split()
