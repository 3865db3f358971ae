"""The images: version ranges, pinned versions, and the Dockerfile."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.files import DEPLOY, ROOT, tool

DOCKERFILE = (ROOT / "Dockerfile").read_text()
FINAL = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return settings


def pinned(*files: str) -> dict[str, str]:
    lines = [line for name in files for line in (DEPLOY / name).read_text().splitlines()]
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize(("extra", "files"), [("cpu", ["constraints.txt"]), ("gpu", ["constraints-gpu.txt"])])
def test_pinned_versions_satisfy_the_requirements(project: dict[str, Any], extra: str, files: list[str]) -> None:
    versions = pinned("constraints.txt", *files)
    for text in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), text


def test_only_the_gpu_image_has_torch_and_no_version_is_pinned_twice() -> None:
    assert "torch" not in pinned("constraints.txt") and "torch" in pinned("constraints-gpu.txt")
    assert pinned("constraints.txt").keys().isdisjoint(pinned("constraints-gpu.txt"))


def test_no_requirement_is_an_exact_pin(project: dict[str, Any]) -> None:
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    specifiers = [
        specifier for text in [*project["dependencies"], *extras] for specifier in Requirement(text).specifier
    ]
    assert {specifier.operator for specifier in specifiers} <= {">=", "<"}


def test_the_cpu_extra_does_not_need_torch(project: dict[str, Any]) -> None:
    names = {Requirement(text).name for text in [*project["dependencies"], *project["optional-dependencies"]["cpu"]]}
    assert names.isdisjoint({"torch", "scikit-learn", "scanpy", "celltypist"})


def test_the_api_image_has_no_model_runtime(project: dict[str, Any]) -> None:
    assert {Requirement(text).name for text in project["dependencies"]}.isdisjoint({"torch", "onnxruntime"})


def test_gpu_pins_are_the_additional_packages_chosen_by_pip(tmp_path: Path) -> None:
    chosen = [("onnxruntime-gpu", "1.30.0"), ("numpy", "9.9"), ("Typing_Extensions", "9"), ("scpalm", "0.1.0")]
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in chosen]}
    (tmp_path / "report.json").write_text(json.dumps(report))
    script = str(DEPLOY / "pin_gpu.py")
    assert tool(sys.executable, script, str(tmp_path / "report.json")).splitlines()[1:] == ["onnxruntime-gpu==1.30.0"]


def test_hadolint_has_no_findings() -> None:
    assert tool("hadolint", "Dockerfile") == ""


def test_copied_paths_exist_and_are_not_ignored() -> None:
    copies = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY")]
    copied = [name for names in copies for name in names if not name.startswith(("--", "/"))]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied and [name for name in copied if not (ROOT / name).exists()] == []
    assert set(copied) <= sent


def test_the_final_stage_has_no_compiler_and_is_unprivileged() -> None:
    assert not re.search(r"\b(gcc|g\+\+|build-essential|make|cmake|git|curl)\b", FINAL)
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", FINAL, re.MULTILINE), (
        "must be a number, so that runAsNonRoot can be checked"
    )
    assert FINAL.index("\nUSER ") > FINAL.index("\nCOPY ")


def test_signals_are_forwarded_and_health_is_checked() -> None:
    assert re.search(r'^ENTRYPOINT \["tini", "--"\]$', FINAL, re.MULTILINE)
    assert re.search(r'^CMD \["scpalm", "serve"\]$', FINAL, re.MULTILINE), "must be the exec form, without a shell"
    check = re.search(r"^HEALTHCHECK [^\[]*CMD (\[.*\])$", FINAL, re.MULTILINE)
    assert check and "/health/live" in json.loads(check[1])[2]
