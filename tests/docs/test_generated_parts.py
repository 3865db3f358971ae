"""The generated parts of the documentation match the code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_map_and_the_settings_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "docs/tools/render.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
