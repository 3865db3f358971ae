"""The commands of README.md and docs/explain/quality.md, each with the test that runs it.

A line without a test fails `test_readme.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/explain/quality.md")

# How a line starts -> which test runs it.
RUN_BY = {
    "make serve": "service",
    ".venv/bin/scpalm ": "service",
    "scpalm key ": "service",
    "curl ": "service",
    "docker compose ": "compose",
    "pip install ": "install",
    "scpalm-train all ": "training",
    "scpalm-train evaluate ": "evaluation",
    "SCPALM_BUNDLE=": "training",
}


def readme_lines() -> list[str]:
    """The lines of indented blocks, without comments."""
    pages = "".join((ROOT / page).read_text(encoding="utf-8") for page in PAGES)
    blocks = re.findall(r"^    (\S.*)$", pages, re.MULTILINE)
    return [re.sub(r"\s+# .*", "", line) for line in blocks]


def lines_of(kind: str) -> list[str]:
    """The lines that one test runs."""
    return [line for line in readme_lines() if kind_of(line) == kind]


def kind_of(line: str) -> str | None:
    """Which test runs a line; None if none does."""
    found = [kind for start, kind in RUN_BY.items() if line.startswith(start)]
    return found[0] if len(found) == 1 else None


def python_block() -> str:
    """The Python example."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return str(block)
