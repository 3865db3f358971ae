"""What goes into the images: every file has a known hash, a bill of materials lists it, and advisories are found."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from deploy import audit, pin_hashes
from tests.deploy.files import DEPLOY, ROOT, tool

IMAGES = ("api", "cpu", "gpu")
ADVISORIES = Path(__file__).parent / "advisories"


def requirements(name: str) -> str:
    return (DEPLOY / f"requirements-{name}.txt").read_text()


@pytest.mark.parametrize("name", [*IMAGES, "build"])
def test_every_package_has_hashes_and_nothing_else(name: str) -> None:
    blocks = [block for block in re.split(r"\n(?=\S)", requirements(name).strip()) if not block.startswith("#")]
    for block in blocks:
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( \\\n    --hash=sha256:[0-9a-f]{64})+", block), block
    assert len(blocks) == len(audit.pins(requirements(name))) > 0


def test_the_versions_are_those_of_the_constraints() -> None:
    pinned = dict(pin.split("==") for pin in pin_hashes.pins_in("constraints.txt", "constraints-gpu.txt"))
    for name in IMAGES:
        assert audit.pins(requirements(name)).items() <= pinned.items()
    assert audit.pins(requirements("cpu")) == dict(pin.split("==") for pin in pin_hashes.pins_in("constraints.txt"))
    assert audit.pins(requirements("gpu")).keys() == pinned.keys() - {"onnxruntime"}
    assert "onnxruntime" not in audit.pins(requirements("api"))


def test_the_images_are_installed_only_by_hash() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    installs = re.findall(r"pip install (.*)", dockerfile)
    assert installs
    for options in installs:
        assert "--require-hashes" in options or ("--no-deps" in options and "--no-index" in options), options
    assert "--no-build-isolation" in dockerfile, "else pip would download what builds the wheel"
    for name in re.findall(r"deploy/(requirements-\w+\.txt)", dockerfile):
        assert (DEPLOY / name).exists()


def test_hashes_of_all_platforms_are_joined() -> None:
    def found(digest: str | None) -> dict[str, object]:
        archive = {"hashes": {"sha256": digest}} if digest else {}
        item = {
            "metadata": {"name": "Some_Package", "version": "1.0"},
            "download_info": {"url": "u", "archive_info": archive},
        }
        return {"install": [item]}

    joined = pin_hashes.hashes_in([found("b" * 64), found("a" * 64), found("a" * 64)])
    expected = f"# Title. Updated by make constraints.\nsome-package==1.0 \\\n    --hash=sha256:{'a' * 64} \\\n"
    assert pin_hashes.requirements_file("Title.", joined) == expected + f"    --hash=sha256:{'b' * 64}\n"
    assert pin_hashes.missing(["other==1.0"], found("a" * 64)) == ["some-package==1.0"]
    with pytest.raises(ValueError, match=r"some-package==1.0: pip names no SHA-256"):
        pin_hashes.hashes_in([found(None)])


@pytest.mark.parametrize("image", IMAGES)
def test_the_bill_of_materials_lists_every_package_with_its_hashes(image: str, tmp_path: Path) -> None:
    """As `make sbom` does."""
    recipe = re.search(r"^sbom:.*?(cyclonedx-py.*?); \\$", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert recipe is not None
    out = tmp_path / "sbom.json"
    command = recipe[1].replace("\\\n", " ").replace("$$image", image)
    command = re.sub(r"--output-file \S+", f"--output-file {out}", command)
    tool(*command.split())
    bill = json.loads(out.read_text())
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == "scpalm"
    listed = {part["name"]: part["version"] for part in bill["components"]}
    assert listed == audit.pins(requirements(image))
    for part in bill["components"]:
        assert part["purl"].startswith(f"pkg:pypi/{part['name']}@{part['version']}")
        digests = [entry["content"] for link in part["externalReferences"] for entry in link.get("hashes", ())]
        assert digests and all(f"sha256:{digest}" in requirements(image) for digest in digests)


def test_advisories_are_matched_by_name_ecosystem_and_version() -> None:
    advisories = [json.loads(path.read_text()) for path in sorted(ADVISORIES.glob("*.json"))]
    installed = {"prometheus-client": "0.26", "h11": "0.14.0", "anyio": "4.16.0", "orjson": "3.0", "redis": "8.1.0"}
    installed["jinja2"] = "3.1.6"
    found = {finding.package: finding for finding in audit.findings(installed, advisories)}
    assert found.keys() == {"prometheus-client", "h11", "anyio"}
    assert found["h11"].fixed == ("0.16.0",) and "CVE-2025-43859" in found["h11"].advisory


@pytest.mark.parametrize(
    ("version", "affected"), [("0.19", False), ("0.20", True), ("0.21", False), ("0.25.1", True), ("0.27", False)]
)
def test_ranges_of_versions(version: str, affected: bool) -> None:
    advisory = json.loads((ADVISORIES / "EXAMPLE-2026-1.json").read_text())
    assert audit.is_affected(Version(version), advisory["affected"][0]) is affected


def test_the_script_prints_what_it_found(tmp_path: Path) -> None:
    """The images have none of the real advisories of the list."""
    for path in ADVISORIES.glob("GHSA-*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    files = [str(DEPLOY / f"requirements-{name}.txt") for name in IMAGES]
    script = [sys.executable, str(DEPLOY / "audit.py"), "--advisories", str(tmp_path)]
    assert tool(*script, *files).rstrip().endswith("3 advisories: 0 findings.")
    (tmp_path / "old.txt").write_text("h11==0.14.0\n")
    with pytest.raises(AssertionError, match=r"h11 0.14.0: GHSA-vqfr-h8mv-ghfj, CVE-2025-43859 .fixed in 0.16.0."):
        tool(*script, str(tmp_path / "old.txt"))
