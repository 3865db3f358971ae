"""docker-compose.yml is valid and consistent, and uses only existing settings and commands of scpalm."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from scpalm.app.cli.main import cli
from scpalm.app.settings import PREFIX, Settings
from tests.deploy.files import DEPLOY, PROMETHEUS, ROOT, compose, load, rules, tool

OUR_SERVICES = ("api", "worker", "worker-cpu", "single", "single-gpu")
SERVICES = compose()["services"]


def commands() -> set[str]:
    return set(typer.main.get_command(cli).commands)  # type: ignore[attr-defined]


def test_docker_compose_accepts_the_file() -> None:
    assert set(tool("docker-compose", "config", "--services").split()) == set(SERVICES)
    tool("docker-compose", "--profile", "cpu", "config", "--quiet")


def test_the_default_profile_is_a_single_process() -> None:
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert {name for name, chosen in profiles.items() if not chosen} == {
        "single",
        "prometheus",
        "alertmanager",
        "grafana",
    }
    assert (
        profiles["single-gpu"] == ["nvidia"] and profiles["worker"] == ["queue"] and profiles["worker-cpu"] == ["cpu"]
    )
    assert profiles["api"] == profiles["redis"] == ["queue", "cpu"]


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_every_variable_is_a_setting_and_every_command_exists(name: str) -> None:
    service = SERVICES[name]
    for variable in service["environment"]:
        assert variable.startswith(PREFIX) and variable.removeprefix(PREFIX).lower() in Settings.model_fields
    program, command = service["command"]
    assert program == "scpalm"
    assert command in commands()


def test_only_the_gpu_worker_needs_a_gpu_and_only_models_a_runtime() -> None:
    extras = {name: SERVICES[name]["build"]["args"]["EXTRAS"] for name in OUR_SERVICES}
    assert extras == {"api": "", "worker": "gpu", "worker-cpu": "cpu", "single": "cpu", "single-gpu": "gpu"}
    devices = {name: "reservations" in SERVICES[name]["deploy"]["resources"] for name in OUR_SERVICES}
    assert {name for name, has in devices.items() if has} == {"worker", "single-gpu"}
    assert SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"


def test_processes_that_share_a_queue_share_redis_and_a_folder() -> None:
    for name in ("api", "worker", "worker-cpu"):
        service = SERVICES[name]
        assert service["environment"]["SCPALM_REDIS_URL"] == "redis://redis:6379/0"
        assert service["environment"]["SCPALM_SPOOL_DIR"] == service["volumes"][0].split(":")[1]
        assert service["depends_on"]["redis"]["condition"] == "service_healthy"


def test_redis_keeps_accepted_work() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command and "--maxmemory-policy noeviction" in command
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_containers_have_time_to_finish_their_work() -> None:
    for name in OUR_SERVICES:
        stop = int(SERVICES[name]["environment"]["SCPALM_STOP_SECONDS"])
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > stop


def test_every_service_has_a_memory_limit_and_monitoring_is_local() -> None:
    for service in SERVICES.values():
        assert service["deploy"]["resources"]["limits"]["memory"]
    for name in ("prometheus", "grafana", "alertmanager", "single", "single-gpu", "api"):
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name]["ports"])
    assert "ports" not in SERVICES["redis"]


@pytest.mark.parametrize("name", OUR_SERVICES)
def test_our_services_cannot_change_their_files_and_have_no_rights_of_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True and service["user"] == "10001:10001"
    assert [entry.partition(":")[0] for entry in service["tmpfs"]] == ["/tmp"]
    written = [service["environment"][f"{PREFIX}SPOOL_DIR"], service["environment"].get(f"{PREFIX}RESULTS_DIR")]
    volumes = {volume.split(":")[1] for volume in service["volumes"]}
    assert {path for path in written if path} <= volumes, "what it writes is in a volume, not in memory"


def test_every_container_is_without_capabilities_and_new_privileges() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"] and service["cap_drop"] == ["ALL"], name
        assert not service.get("privileged") and "cap_add" not in service, name


def reachable(name: str) -> set[str]:
    """The services that share a network with this one."""
    own = set(SERVICES[name]["networks"])
    return {other for other, service in SERVICES.items() if other != name and own & set(service["networks"])}


def test_networks_connect_only_what_must_talk() -> None:
    assert reachable("redis") == {"api", "worker", "worker-cpu"}
    assert reachable("prometheus") == {*OUR_SERVICES, "alertmanager", "grafana"}
    assert reachable("grafana") == {"prometheus", "alertmanager"}
    settings = compose()["networks"]
    internal = {name for name, network in settings.items() if (network or {}).get("internal")}
    assert internal == {"queue", "metrics"}
    for name, service in SERVICES.items():
        outside = set(service["networks"]) - internal
        assert bool(outside) == ("ports" in service), f"{name}: only a network with a way out can publish ports"


def test_prometheus_scrapes_all_our_processes() -> None:
    found: dict[str, int] = {}
    for job in load(PROMETHEUS / "prometheus.yml")["scrape_configs"]:
        for entry in job["dns_sd_configs"]:
            found |= dict.fromkeys(entry["names"], entry["port"])
    expected = {name: int(SERVICES[name]["environment"].get("SCPALM_PORT", 8000)) for name in OUR_SERVICES}
    assert found == expected


def test_the_memory_alert_uses_the_limit_of_the_workers() -> None:
    (rule,) = [rule for rule in rules("rules.yml") if rule["record"] == "scpalm:device_memory_limit_bytes"]
    for name in ("worker", "worker-cpu"):
        gigabytes = int(SERVICES[name]["deploy"]["resources"]["limits"]["memory"].removesuffix("G"))
        assert rule["expr"] == f"vector({gigabytes} * 1024 * 1024 * 1024)"


def test_mounted_paths_exist() -> None:
    mounts = [volume for service in SERVICES.values() for volume in service.get("volumes", ())]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files and [name for name in files if not (ROOT / name).exists()] == []
    named = {mount.split(":")[0] for mount in mounts if not mount.startswith("./")}
    assert named == set(compose()["volumes"])


OVERLAYS = sorted((DEPLOY / "compose").glob("*.yml"))


@pytest.mark.parametrize("file", OVERLAYS, ids=lambda path: path.stem)
def test_overlays_extend_existing_services_with_existing_settings(file: Path) -> None:
    added = load(file)
    # Options of a user: no port of the service itself, no container without limits.
    for name, service in added["services"].items():
        if name not in SERVICES:
            assert service["deploy"]["resources"]["limits"]["memory"] and re.search(r":\d+\.\d+", service["image"])
            continue
        assert "ports" not in service
        for variable in service.get("environment", {}):
            assert variable.startswith(PREFIX) and variable.removeprefix(PREFIX).lower() in Settings.model_fields
    for mount in [volume for service in added["services"].values() for volume in service.get("volumes", ())]:
        source = mount.split(":")[0]
        assert not source.startswith("./") or (ROOT / source).exists()


def test_overlays_can_be_combined(tmp_path: Path) -> None:
    words = [word for file in (ROOT / "docker-compose.yml", *OVERLAYS) for word in ("-f", str(file))]
    whole = yaml.safe_load(tool("docker-compose", *words, "--profile", "cpu", "config"))
    single = whole["services"]["single"]
    assert single["environment"]["SCPALM_API_KEYS_FILE"] == f"/run/secrets/{single['secrets'][0]['source']}"
    assert single["environment"]["SCPALM_ALLOW_OPEN"] == "0" and single["ports"][0].startswith("127.0.0.1:")
    assert single["environment"]["SCPALM_RESULTS_DIR"] == "/var/lib/scpalm/shared"
    scraped = load(PROMETHEUS / "with-keys.yml")["scrape_configs"][0]["dns_sd_configs"][0]["port"]
    assert single["environment"]["SCPALM_METRICS_PORT"] == str(scraped)


def test_third_party_images_have_a_version() -> None:
    others: dict[str, Any] = {name: service for name, service in SERVICES.items() if name not in OUR_SERVICES}
    assert others
    for service in others.values():
        assert re.search(r":v?\d+\.\d+", service["image"]), service["image"]
