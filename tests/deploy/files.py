"""The files of the deployment, as the tools that use them would read them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"


def load(path: Path) -> Any:
    """One YAML document."""
    return yaml.safe_load(path.read_text())


def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors followed."""
    settings: dict[str, Any] = load(ROOT / "docker-compose.yml")
    return settings


def rules(name: str) -> list[dict[str, Any]]:
    """Every rule of a file in deploy/prometheus."""
    return [rule for group in load(PROMETHEUS / name)["groups"] for rule in group["rules"]]


def tool(name: str, *arguments: str, folder: Path = ROOT) -> str:
    """Output of a command line tool; the test is skipped where it is not installed, and fails where the tool does."""
    # Beside the interpreter, too: tools from PyPI are in the virtual environment, which need not be active.
    program = which(name) or which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{name} is not installed (Debian or PyPI has it)")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout
