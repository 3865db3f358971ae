"""Load the files of the deployment as the tools that use them do."""

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
    """Load a YAML document."""
    return yaml.safe_load(path.read_text())


def compose() -> dict[str, Any]:
    """docker-compose.yml with its anchors resolved."""
    settings: dict[str, Any] = load(ROOT / "docker-compose.yml")
    return settings


def rules(name: str) -> list[dict[str, Any]]:
    """All rules in a file of deploy/prometheus."""
    return [rule for group in load(PROMETHEUS / name)["groups"] for rule in group["rules"]]


def tool(name: str, *arguments: str, folder: Path = ROOT) -> str:
    """Run a command-line tool and return its output. Skips the test if the tool is missing; fails if the tool fails."""
    # Also search the folder of the interpreter: tools from PyPI are there even if the environment is not active.
    program = which(name) or which(name, path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip(f"{name} is not installed (Debian or PyPI has it)")
    done = subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{name} {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done.stdout
