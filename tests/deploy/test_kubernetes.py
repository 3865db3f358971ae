"""The manifests match the Kubernetes schemas and docker-compose.yml."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped, unused-ignore]
import pytest
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

from scpalm.app.settings import PREFIX, Settings
from tests.deploy.files import DEPLOY, compose, tool
from tests.deploy.test_prometheus import known_metrics, metrics_in

FOLDER = DEPLOY / "kubernetes"
FILES = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]


def manifests() -> list[dict[str, Any]]:
    return [part for name in FILES for part in yaml.safe_load_all((FOLDER / name).read_text())]


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [part for part in manifests() if part["kind"] == kind and part["metadata"]["name"] == name]
    return found


def pod(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = named("Deployment", name)["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("manifest", manifests(), ids=lambda part: f"{part['kind']}-{part['metadata']['name']}")
@pytest.mark.parametrize("version", ["1.28", "1.37"])
def test_manifests_match_the_kubernetes_schema(manifest: dict[str, Any], version: str) -> None:
    if manifest["kind"] == "ScaledObject":
        read = keda.ScaledObject.model_validate(manifest)
        # The models keep unknown fields under their original names, so a round trip shows which fields were understood.
        assert read.model_dump(by_alias=True, exclude_none=True, mode="json")["spec"] == manifest["spec"]
        assert not read.spec.model_extra
        return
    kubernetes_validate.validate(manifest, version, strict=True)


def test_kustomize_builds_the_manifests_and_labels_the_pods() -> None:
    built = list(yaml.safe_load_all(tool("kubectl", "kustomize", str(FOLDER))))
    assert len(built) == len(manifests())
    for part in built:
        if part["kind"] in ("Deployment", "StatefulSet"):
            # The deny-all network policy selects pods by this label.
            assert part["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "scpalm"


def test_settings_exist_and_match_those_of_compose() -> None:
    data = named("ConfigMap", "scpalm")["data"]
    for variable in [*data, *(entry["name"] for entry in pod("scpalm-worker")["containers"][0]["env"])]:
        assert variable.removeprefix(PREFIX).lower() in Settings.model_fields
    environment = compose()["services"]["api"]["environment"]
    assert {key: data[key] for key in environment} == environment
    for name, service in (("scpalm-api", "api"), ("scpalm-worker", "worker")):
        assert pod(name)["containers"][0]["args"] == compose()["services"][service]["command"]


@pytest.mark.parametrize("name", ["scpalm-api", "scpalm-worker"])
def test_pods_have_time_to_drain_and_are_unprivileged(name: str) -> None:
    data = named("ConfigMap", "scpalm")["data"]
    (container,) = pod(name)["containers"]
    assert pod(name)["terminationGracePeriodSeconds"] > int(data["SCPALM_DRAIN_SECONDS"]) + int(
        data["SCPALM_STOP_SECONDS"]
    )
    ready = container["readinessProbe"]
    if name == "scpalm-api":
        assert int(data["SCPALM_DRAIN_SECONDS"]) > ready["periodSeconds"] * ready["failureThreshold"]
    assert ready["httpGet"]["path"] == "/health/ready"
    assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert pod(name)["securityContext"]["runAsNonRoot"] and not container["securityContext"]["allowPrivilegeEscalation"]
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]


@pytest.mark.parametrize("name", ["scpalm-api", "scpalm-worker"])
def test_pods_write_only_to_their_volumes(name: str) -> None:
    (container,) = pod(name)["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {"/tmp", named("ConfigMap", "scpalm")["data"]["SCPALM_SPOOL_DIR"]}
    volumes = {volume["name"]: volume for volume in pod(name)["volumes"]}
    assert volumes[mounts["/tmp"]]["emptyDir"]["sizeLimit"]


def labels_of(pod_name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": pod_name, "app.kubernetes.io/part-of": "scpalm"}


def is_allowed(direction: str, pod_name: str, peer: dict[str, str], port: int) -> bool:
    """Whether a policy of the pod permits traffic with a peer, by its labels. Policies are added up."""
    word = {"ingress": "from", "egress": "to"}[direction]
    for policy in (part["spec"] for part in manifests() if part["kind"] == "NetworkPolicy"):
        if not policy["podSelector"]["matchLabels"].items() <= labels_of(pod_name).items():
            continue
        for rule in policy.get(direction, ()):
            peers = [entry["podSelector"]["matchLabels"].items() <= peer.items() for entry in rule.get(word, ())]
            if port in [entry["port"] for entry in rule["ports"]] and (not peers or any(peers)):
                return True
    return False


def test_network_policies_permit_only_what_must_talk() -> None:
    pods = ("scpalm-api", "scpalm-worker", "redis", "prometheus", "other")
    may = {
        (sender, receiver, port)
        for sender in pods
        for receiver in ("scpalm-api", "scpalm-worker", "redis")
        for port in (22, 6379, 8000, 9000)
        if is_allowed("ingress", receiver, {"app.kubernetes.io/name": sender}, port)
    }
    to_api = {(sender, "scpalm-api", 8000) for sender in pods}
    to_redis = {("scpalm-api", "redis", 6379), ("scpalm-worker", "redis", 6379)}
    assert may == to_api | to_redis | {("prometheus", "scpalm-worker", 9000)}
    dns = {"k8s-app": "kube-dns"}
    for sender in ("scpalm-api", "scpalm-worker"):
        assert is_allowed("egress", sender, {"app.kubernetes.io/name": "redis"}, 6379)
        assert is_allowed("egress", sender, dns, 53)
        assert not is_allowed("egress", sender, {"app.kubernetes.io/name": "other"}, 443)
    default = named("NetworkPolicy", "scpalm-default")["spec"]
    assert "ingress" not in default and default["policyTypes"] == ["Ingress", "Egress"], "all else is denied"


def test_workers_have_a_gpu_and_scale_with_the_queue() -> None:
    assert pod("scpalm-worker")["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    scaled = named("ScaledObject", "scpalm-worker")["spec"]
    assert scaled["scaleTargetRef"]["name"] == named("Deployment", "scpalm-worker")["metadata"]["name"]
    assert metrics_in(scaled["triggers"][0]["metadata"]["query"]) <= known_metrics()


def test_selectors_find_their_pods() -> None:
    labels = [
        part["spec"]["template"]["metadata"]["labels"]
        for part in manifests()
        if part["kind"] in ("Deployment", "StatefulSet")
    ]
    for part in manifests():
        selector = part["spec"].get("selector") if part["kind"] in ("Service", "PodDisruptionBudget") else None
        if selector:
            selected = selector.get("matchLabels", selector)
            assert any(selected.items() <= found.items() for found in labels), part["metadata"]["name"]


def test_keys_come_from_a_secret(tmp_path: Path) -> None:
    for name in ("kubernetes", "kubernetes-with-keys"):
        shutil.copytree(DEPLOY / name, tmp_path / name)
    (tmp_path / "kubernetes-with-keys" / "keys.json").write_text("[]")
    built = list(yaml.safe_load_all(tool("kubectl", "kustomize", str(tmp_path / "kubernetes-with-keys"))))
    (secret,) = [part for part in built if part["kind"] == "Secret"]
    (api,) = [part for part in built if part["kind"] == "Deployment" and part["metadata"]["name"] == "scpalm-api"]
    spec = api["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert all(name.removeprefix(PREFIX).lower() in Settings.model_fields for name in variables)
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "keys"]
    (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "keys"]
    assert volume["secret"]["secretName"] == secret["metadata"]["name"] == "scpalm-keys"
    assert variables["SCPALM_API_KEYS_FILE"] == f"{mount['mountPath']}/{next(iter(secret['data']))}"
    (policy,) = [part for part in built if part["kind"] == "NetworkPolicy" and part["metadata"]["name"] == "scpalm-api"]
    ports = {port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]}
    assert {8000, int(variables["SCPALM_METRICS_PORT"])} == ports
    for part in built:
        if part["kind"] != "ScaledObject":
            kubernetes_validate.validate(part, "1.37", strict=True)
