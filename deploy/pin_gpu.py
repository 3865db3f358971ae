"""Print pins for the packages that `pip install --dry-run --report` chose for '.[gpu]' in addition to constraints.txt.

Run by `make constraints`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def pins(report: dict[str, list[dict[str, dict[str, str]]]], constraints: str) -> list[str]:
    """``name==version`` lines in alphabetical order."""
    known = {line.partition("==")[0].lower().replace("_", "-") for line in constraints.splitlines()} | {"scpalm"}
    chosen = [(item["metadata"]["name"], item["metadata"]["version"]) for item in report["install"]]
    return sorted(
        (f"{name}=={version}" for name, version in chosen if name.lower().replace("_", "-") not in known), key=str.lower
    )


if __name__ == "__main__":
    constraints = Path(__file__).with_name("constraints.txt").read_text()
    print(
        "# Packages of '.[gpu]' in addition to constraints.txt; resolved, not installed. Updated by make constraints."
    )
    print("\n".join(pins(json.loads(Path(sys.argv[1]).read_text()), constraints)))
