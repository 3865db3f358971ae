"""Write the files with which the images are installed: every package with its version and the hashes of its files.

    python deploy/pin_hashes.py

Reads constraints.txt and constraints-gpu.txt, which `make constraints` updates before it runs this. pip says which
file of a version each platform gets; nothing is downloaded or installed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parent
# Python and C libraries of the base image, and the processors that it exists for.
PYTHON_VERSION = "3.11"
NEWEST_GLIBC = 36
MACHINES = ("x86_64", "aarch64")
# What builds the wheel of scpalm: the build requirements of pyproject.toml with all that they need.
BUILD = ("hatchling",)
NOT_IN_API = ("flatbuffers", "onnxruntime", "protobuf")

Hashes = Mapping[str, Iterable[str]]


def platforms(machine: str) -> list[str]:
    """Options of pip for every kind of wheel that the base image can use."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in range(NEWEST_GLIBC, 4, -1)] + [f"manylinux2014_{machine}"]
    return [word for tag in tags for word in ("--platform", tag)]


def report(requirements: list[str], machine: str, *, closed: bool) -> dict[str, Any]:
    """What pip would install on a machine. ``closed``: the requirements need no others."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "requirements.txt").write_text("\n".join(requirements))
        options = ["--dry-run", "--ignore-installed", "--quiet", "--only-binary=:all:", "--target", f"{folder}/target"]
        options += ["--python-version", PYTHON_VERSION, "--implementation", "cp", *platforms(machine)]
        options += ["--no-deps"] if closed else []
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options]
        files = ["--report", f"{folder}/report.json", "--requirement", f"{folder}/requirements.txt"]
        subprocess.run([*command, *files], check=True)
        found: dict[str, Any] = json.loads((Path(folder) / "report.json").read_text())
    return found


def hashes_in(reports: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """``name==version`` with the SHA-256 of each file. Raises ValueError if a file has none."""
    hashes: dict[str, set[str]] = defaultdict(set)
    for item in (item for found in reports for item in found["install"]):
        pin = f"{canonical(item['metadata']['name'])}=={item['metadata']['version']}"
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if digest is None:
            raise ValueError(f"{pin}: pip names no SHA-256 for {item['download_info']['url']}.")
        hashes[pin].add(digest)
    return hashes


def missing(pins: list[str], found: Mapping[str, Any]) -> list[str]:
    """Packages that pip would install in addition to ``pins``. With hashes it would refuse them."""
    return sorted(hashes_in([found]).keys() - set(pins))


def canonical(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements_file(title: str, hashes: Hashes) -> str:
    """The text of a file for ``pip install --require-hashes``."""
    lines = [f"# {title} Updated by make constraints."]
    for pin in sorted(hashes):
        lines.append(" \\\n".join([pin, *(f"    --hash=sha256:{digest}" for digest in sorted(hashes[pin]))]))
    return "\n".join(lines) + "\n"


def pins_in(*names: str) -> list[str]:
    """The pins of constraint files, with canonical names."""
    lines = [line for name in names for line in (DEPLOY / name).read_text().splitlines() if not line.startswith("#")]
    return [f"{canonical(name)}=={version}" for name, _, version in (line.partition("==") for line in lines)]


def main() -> None:
    cpu, more = pins_in("constraints.txt"), pins_in("constraints-gpu.txt")
    api = [pin for pin in cpu if pin.partition("==")[0] not in NOT_IN_API]
    gpu = [pin for pin in cpu if pin.partition("==")[0] != "onnxruntime"] + more
    for pins in (api, cpu, gpu):
        if more_needed := missing(pins, report(pins, MACHINES[0], closed=False)):
            sys.exit(f"The constraints lack {', '.join(more_needed)}. Update them first (make constraints).")
    every = hashes_in(report(sorted({*cpu, *more}), machine, closed=True) for machine in MACHINES)
    build = hashes_in(report(list(BUILD), machine, closed=False) for machine in MACHINES)
    for name, title, hashes in (
        ("api", "An image without a model runtime.", {pin: every[pin] for pin in api}),
        ("cpu", "An image for CPUs.", {pin: every[pin] for pin in cpu}),
        ("gpu", "An image for NVIDIA GPUs.", {pin: every[pin] for pin in gpu}),
        ("build", "What builds the wheel of scpalm.", build),
    ):
        (DEPLOY / f"requirements-{name}.txt").write_text(requirements_file(title, hashes))


if __name__ == "__main__":
    main()
