"""What is deployed fits together: image, compose file, Prometheus, and the declared ranges of versions."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return settings


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return settings


def test_versions_in_the_image_are_in_the_declared_ranges(project: dict[str, Any]) -> None:
    lines = (ROOT / "deploy" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(name): version for name, version in pairs}
    for text in [*project["dependencies"], *project["optional-dependencies"]["cpu"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text
    assert "torch" not in pinned


def test_no_requirement_is_an_exact_pin(project: dict[str, Any]) -> None:
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    specifiers = [
        specifier for text in [*project["dependencies"], *extras] for specifier in Requirement(text).specifier
    ]
    assert {specifier.operator for specifier in specifiers} <= {">=", "<"}


def test_serving_on_a_cpu_asks_for_no_torch(project: dict[str, Any]) -> None:
    names = {Requirement(text).name for text in [*project["dependencies"], *project["optional-dependencies"]["cpu"]]}
    assert names.isdisjoint({"torch", "scikit-learn", "scanpy", "celltypist"})


def test_prometheus_scrapes_a_name_that_both_services_answer_to(compose: dict[str, Any]) -> None:
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    targets = [
        target for job in scraped["scrape_configs"] for entry in job["static_configs"] for target in entry["targets"]
    ]
    services = compose["services"]
    assert targets == ["scpalm:8000"]
    assert "scpalm" in services
    assert services["scpalm-gpu"]["networks"]["default"]["aliases"] == ["scpalm"]
    for name in ("scpalm", "scpalm-gpu"):
        assert services[name]["ports"] == ["${PORT:-8000}:8000"]


def test_files_that_compose_mounts_and_the_image_copies_exist(compose: dict[str, Any]) -> None:
    mounted = [
        volume.split(":")[0] for volume in compose["services"]["prometheus"]["volumes"] if volume.startswith("./")
    ]
    copies = [line.split()[1:-1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("COPY")]
    copied = [name for names in copies for name in names if not name.startswith(("--", "/"))]
    assert mounted and copied
    assert [name for name in [*mounted, *copied] if not (ROOT / name).exists()] == []


def test_the_gpu_service_is_asked_for_by_profile(compose: dict[str, Any], project: dict[str, Any]) -> None:
    service = compose["services"]["scpalm-gpu"]
    assert service["profiles"] == ["nvidia"]
    assert service["build"]["args"]["EXTRA"] in project["optional-dependencies"]
    assert service["deploy"]["resources"]["reservations"]["devices"][0]["driver"] == "nvidia"
    assert "profiles" not in compose["services"]["scpalm"]
